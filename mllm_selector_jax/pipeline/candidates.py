"""Reads what a selection is made from: scored rows, groups, lists and options."""

import contextlib
import dataclasses
import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.inputs import base_model, held_out
from mllm_selector_jax.inputs.given_shares import read_shares
from mllm_selector_jax.inputs.lists import Reference, read_references
from mllm_selector_jax.inputs.references import find_rows
from mllm_selector_jax.pipeline.clusters import read_keys
from mllm_selector_jax.pipeline.doubts import read_doubt
from mllm_selector_jax.pipeline.group_columns import (
  POOL_COLUMNS,
  GroupColumns,
  make_groups,
)
from mllm_selector_jax.pipeline.kept_work import oversee
from mllm_selector_jax.pipeline.limited_columns import (
  check_limits,
  read_limited,
  read_limits,
)
from mllm_selector_jax.pipeline.listed_rows import (
  LISTS,
  name_rows,
  require_reference,
  uses_reference,
)
from mllm_selector_jax.pipeline.needs import (
  check_signals,
  find_held_out,
  list_signals,
  make_options,
  needs_embeddings,
)
from mllm_selector_jax.pipeline.scored_models import needs_seed
from mllm_selector_jax.runs.context import Run, plain
from mllm_selector_jax.scoring.score_table import list_columns, read_scores
from mllm_selector_jax.selection import budget as budgets
from mllm_selector_jax.selection import groups as grouping
from mllm_selector_jax.selection import strategies
from mllm_selector_jax.selection.eligibility import Scores
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.pairwise.unit_rows import Stacked
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.types import InputError

OVER_ALL = "pool"  # value of select.normalise: necessity is ranked among all rows


class Eligible(NamedTuple):
  """The rows that a selection may choose from, and its options.

  Attributes:
    pool: The checked pool.
    rows: Pool row numbers of the eligible rows, ascending.
    scores: Scores of the eligible rows, aligned with `rows`.
    groups: Groups of the eligible rows, aligned with `rows`.
    options: Options of the selection.
    reference: The number of rows of the reference; None if the selection does not
      depend on one.
  """

  pool: PoolTable
  rows: Int[np.ndarray, " N"]
  scores: Scores
  groups: grouping.Groups
  options: SelectOptions
  reference: int | None = None

  def select(self, budget: str | budgets.Budget, rng: int, **changes: Any) -> Selection:
    """Make a selection.

    Args:
      budget: How many rows to keep, as in the setting `select.budget`.
      rng: Seed of the selection's random draws.
      **changes: Options to replace, by field name of `SelectOptions`.
    """
    options = dataclasses.replace(self.options, **changes)
    budget = budgets.relate(budget, self.reference, "select.budget")
    return strategies.select(self.scores, self.groups, budget, rng, options)


def make_config(run: Run, **changes: Any) -> dict[str, Any]:
  """Return the `select` section, with its lists and shares read from their files.

  The lists hold references to rows (`lists.Reference`). `name_rows` replaces them by
  row numbers, so that a selection depends on the rows of a list and not on its file.
  The reference is left out if the selection does not depend on it.

  Args:
    run: The invocation.
    **changes: Settings to replace, by their names in the section; or "budgets", if
      several selections are made of one config.
  """
  config = _draft_config(run.cfg, **changes)
  if not uses_reference(config):
    del config["reference"]
  if config["normalise"] == OVER_ALL:
    del config["normalise"]  # selections of earlier versions remain what they were
  for name in LISTS:
    if name not in config:
      continue
    option, value = f"select.{name}", config[name]
    read = functools.partial(read_references, value, option)
    config[name] = run.once((option, str(value)), read)
  config["target_shares"] = read_shares(config["target_shares"])
  return config


def _draft_config(cfg: Any, **changes: Any) -> dict[str, Any]:
  """Return the `select` section with changes, without reading the files it names."""
  config = {**plain(cfg.select), "development": held_out.read_share(cfg), **changes}
  for name in ("control", "sweep", "search", "rounds", "most_missing"):
    del config[name]
  require_reference(config)
  config["target_shares"] = config["target_shares"] or None
  config["bound"] = read_bound(config["bound"])
  if config["like"] and config["target"] != "like":
    raise InputError(
      f"select.like is given and select.target is {config['target']!r}; samples to be"
      ' like go with target "like".'
    )
  return read_limits(config)


def check_lists(run: Run, **changes: Any) -> None:
  """Check a selection's lists of rows and its budget against the checked pool.

  This is called before anything is trained.

  Raises:
    InputError: A list does not fit the pool, or the budget leaves no row.
  """
  config, pool = make_config(run, **changes), base_model.open_pool(run)
  config, _ = name_rows(run, config)
  amount = budgets.relate(config["budget"], count_reference(config), "select.budget")
  rows = np.flatnonzero(pool.ok)
  costs = {name: cost[rows] for name, cost in _list_costs(pool, config).items()}
  budgets.resolve(amount, len(rows), costs, "select.budget")


def count_reference(config: dict[str, Any]) -> int | None:
  """Count the rows of the reference in a config from `name_rows`; None without one."""
  return len(config["reference"]) if config.get("reference") else None


def relate_budget(run: Run) -> budgets.Budget:
  """Return the budget of the config, in rows if it is relative to the reference."""
  config = make_config(run)
  if uses_reference(config):
    config, _ = name_rows(run, config)
  return budgets.relate(config["budget"], count_reference(config), "select.budget")


def read_bound(value: Any) -> Any:
  """Return a value of `select.bound`, with a number that is text made a float."""
  with contextlib.suppress(TypeError, ValueError):
    return float(value)
  return value


def predict_columns(cfg: Any) -> list[str]:
  """Return the columns that the score table of this config has or will have."""
  if cfg.score.table is not None:
    return list_columns(Path(cfg.score.table))
  return ["supervised", "seed", "loss", *base_model.scored_signals(cfg)]


def check_names(
  run: Run, columns: Collection[str] | None = None, **changes: Any
) -> None:
  """Check that the score table has, or will have, all columns of the selection.

  This is called before anything is scored.

  Args:
    run: The invocation.
    columns: Columns of the score table; None for those that this config makes.
    **changes: Settings of the section `select` to replace, as in `make_config`.

  Raises:
    InputError: The selection reads a column that the score table lacks, or a setting
      is invalid.
  """
  columns = predict_columns(run.cfg) if columns is None else columns
  config = _draft_config(run.cfg, **changes)
  check_signals(list_signals(config), columns, base_model.scored_signals(run.cfg))
  named = {*POOL_COLUMNS, *columns}
  check_limits(config, named)
  grouping.check_form(config["groups"], named)
  if (column := config.get("normalise", OVER_ALL)) not in {OVER_ALL, *named}:
    raise InputError(
      f"select.normalise names {column!r}; allowed are {OVER_ALL} and the columns"
      f" {', '.join(sorted(named))}."
    )


def check_pool(run: Run) -> None:
  """Check the settings that depend on the checked pool, before anything is tuned.

  Raises:
    InputError: A budget keeps no row, a list names a row that cannot be used, or the
      groups are those of a pool column in which hardly any value repeats.
  """
  check_lists(run)
  config, pool = make_config(run), base_model.open_pool(run)
  rows = np.flatnonzero(pool.ok)
  if needs_seed(run):
    costs = {budgets.TOKENS: pool.tokens[rows]}
    budgets.resolve(run.cfg.seed.rows, len(rows), costs, "seed.rows")
  named = [(name, "select.groups") for name in grouping.split_form(config["groups"])]
  named.append((config.get("normalise", OVER_ALL), "select.normalise"))
  for name, option in named:
    if name in POOL_COLUMNS:
      values = getattr(pool, name)[rows]
      grouping.by_column(values, "" if name == "source" else name, option)


def read_eligible(
  run: Run,
  config: dict[str, Any],
  rng: int,
  embeddings: bool = False,
  aside: Path | None = None,
) -> Eligible:
  """Read the rows that a selection may choose from, with their scores and groups.

  Args:
    run: A run at the workdir of the pool and the scores.
    config: The config from `name_rows`, or from a selection's provenance. The lists
      in a provenance hold row numbers, or ids if an older version wrote it.
    rng: Seed of the clusters.
    embeddings: Whether to read the embeddings even if the config does not need them.
    aside: The folder that keeps what a selection has done until it is complete; see
      `kept_work.oversee`.

  Raises:
    InputError: The score table lacks a column, or a list names a row without a score.
  """
  options, signals = make_options(config), list_signals(config)
  pool, table = base_model.open_pool(run), read_scores(run.workdir.scores.path)
  strategy = strategies.find_strategy(options.strategy)
  maker = find_held_out(options)
  check_signals(signals, table.columns, base_model.scored_signals(run.cfg))
  finite = np.isfinite(table.signal(config["signal"]))
  for name in strategy.signals:
    finite &= np.isfinite(table.signal(name))
  rows = table.row[finite]
  vectors = None
  if embeddings or needs_embeddings(options):
    parts = table.map_embeddings()
    if parts and parts[0].shape[1]:  # a table that another run made may hold none
      vectors = Stacked(parts, None if finite.all() else np.flatnonzero(finite))
  left_out = _mark(pool, rows, config["leave_out"], "leave_out")
  development = None
  if share := config.get("development"):
    development = held_out.hold_out(read_keys(pool, rows), share, rng)
    left_out = development if left_out is None else left_out | development
  columns = GroupColumns(pool, table, finite)
  classes = None
  if (name := config.get("normalise", OVER_ALL)) != OVER_ALL:
    classes = grouping.by_column(columns[name], name, "select.normalise").index
  costs = _list_costs(pool, config)
  scores = Scores(
    necessity=table.signal(config["signal"])[finite],
    key=read_keys(pool, rows),
    signals={
      name: table.signal(name)[finite]
      for name, option in signals.items()
      if option != "select.signal"
    },
    embeddings=vectors,
    seen=table.signal("seed")[finite],
    classes=classes,
    tokens=costs[budgets.TOKENS][rows],
    mflops=costs[budgets.FLOPS][rows] if budgets.FLOPS in costs else None,
    like=_mark(pool, rows, config["like"], "like"),
    reference=_mark(pool, rows, config["reference"], "reference")
    if options.strategy == strategies.REFERENCE
    else None,
    reference_score=_read_scores(rows, config)
    if options.strategy == strategies.REFERENCE
    else None,
    forced_in=_mark(pool, rows, config["force_in"], "force_in"),
    left_out=left_out,
    held_out=development,
    doubt=read_doubt(run, maker, rows) if maker else None,
    answer=pool.answer[rows] if pool.has_answers else None,
    columns=read_limited(config, pool, rows, columns),
    overseer=oversee(run, aside),
  )
  groups = make_groups(run, pool, table, finite, columns, scores, options, rng)
  return Eligible(pool, rows, scores, groups, options, count_reference(config))


def _list_costs(pool: PoolTable, config: dict[str, Any]) -> budgets.Costs:
  """Return what every pool row costs, in each unit that the config's budgets need."""
  costs = {budgets.TOKENS: pool.tokens}
  if "flops" in config:
    from mllm_selector_jax.pipeline import flops  # imports jax

    costs[budgets.FLOPS] = flops.count_mflops(pool, config["flops"])
  return costs


def _mark(
  pool: PoolTable, rows: Int[np.ndarray, " N"], listed: list[Any], name: str
) -> Bool[np.ndarray, " N"] | None:
  if not listed:
    return None
  option = f"select.{name}"
  if isinstance(listed[0], int):
    marked = np.array(listed, np.int64)
  else:
    entries = [Reference(e) if isinstance(e, str) else e for e in listed]
    marked = find_rows(pool, entries, option).rows
  unscored = np.setdiff1d(marked, rows)
  if len(unscored) and name != "leave_out":  # an unscored row is left out anyway
    row = int(unscored[0])
    raise InputError(
      f"{option} names row {row:,} (id {pool.id[row]!r}), whose score is not a number."
      f" Take such rows ({len(unscored):,}) out of the list."
    )
  return np.isin(rows, marked)


def _read_scores(
  rows: Int[np.ndarray, " N"], config: dict[str, Any]
) -> Float[np.ndarray, " N"] | None:
  """Return the score that a published list gives to each of some rows; NaN for none."""
  if (listed := config.get("reference_scores")) is None:
    return None
  members = np.array(config["reference"], np.int64)  # ascending
  place = np.minimum(np.searchsorted(members, rows), len(members) - 1)
  return np.where(members[place] == rows, np.array(listed)[place], np.nan)
