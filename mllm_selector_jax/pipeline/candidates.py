"""What a selection is made from: scored rows, their groups, ids and options."""

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.inputs import base_model, held_out
from mllm_selector_jax.inputs.lists import Reference, read_references, read_shares
from mllm_selector_jax.inputs.references import find_rows
from mllm_selector_jax.pipeline.clusters import read_clusters, read_keys
from mllm_selector_jax.pipeline.doubts import read_doubt
from mllm_selector_jax.pipeline.needs import (
  check_signals,
  find_held_out,
  list_signals,
  make_options,
  needs_embeddings,
)
from mllm_selector_jax.pipeline.scored_models import needs_seed
from mllm_selector_jax.runs.context import Run, plain
from mllm_selector_jax.scoring.score_table import ScoreTable, list_columns, read_scores
from mllm_selector_jax.selection import budget, strategies
from mllm_selector_jax.selection import groups as grouping
from mllm_selector_jax.selection.eligibility import Scores
from mllm_selector_jax.selection.necessity import rank_normalise
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.types import InputError

LISTS = ("force_in", "leave_out", "like")  # of rows
POOL_COLUMNS = ("source", "turns", "truncated", "has_image")


class Eligible(NamedTuple):
  """The rows that a selection may choose from, and how.

  Attributes:
    pool: the checked pool.
    rows: their pool rows, ascending; the arrays of `scores` have their order.
    scores: of these rows.
    groups: of these rows.
    options: of the selection.
  """

  pool: PoolTable
  rows: Int[np.ndarray, " N"]
  scores: Scores
  groups: grouping.Groups
  options: SelectOptions

  def select(self, budget: str, rng: int, **changes: Any) -> Selection:
    """A selection of this budget; changes are to the options."""
    options = dataclasses.replace(self.options, **changes)
    return strategies.select(self.scores, self.groups, budget, rng, options)


def make_config(run: Run, **changes: Any) -> dict[str, Any]:
  """The config's section with changes, lists and shares read from their files.

  Lists hold what they say of rows, see `lists.Reference`; `name_rows` makes numbers of
  rows of it, so that a list's meaning counts as the setting, not its file.
  """
  config = _draft_config(run.cfg, **changes)
  for name in LISTS:
    option, value = f"select.{name}", config[name]
    read = functools.partial(read_references, value, option)
    config[name] = run.once((option, str(value)), read)
  config["target_shares"] = read_shares(config["target_shares"])
  return config


def _draft_config(cfg: Any, **changes: Any) -> dict[str, Any]:
  """The config's section with changes; what it names as files is not read yet."""
  config = {**plain(cfg.select), **changes}
  for name in ("control", "sweep", "search", "rounds"):
    del config[name]
  config["development"] = held_out.read_share(cfg)
  config["target_shares"] = config["target_shares"] or None
  config["bound"] = read_bound(config["bound"])
  if config["like"] and config["target"] != "like":
    raise InputError(
      f"select.like is given and select.target is {config['target']!r}; samples to be"
      ' like go with target "like".'
    )
  return config


def name_rows(
  run: Run, config: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
  """The config with its lists as row numbers, ascending.

  Args:
    run: of a workdir whose pool is checked.
    config: from `make_config`.

  Returns:
    The config, and what must be said of how the rows were found, which is said.

  Raises:
    InputError: a list names what is no row, or is to keep one that was set aside.
  """
  notes = []
  for name in LISTS:
    if entries := config[name]:
      pool, option = base_model.open_pool(run), f"select.{name}"
      found = run.once(
        (name, run.workdir.pool.digest(), tuple(entries)),
        lambda: find_rows(pool, entries, option, run.progress),  # noqa: B023
      )
      aside = found.rows[~pool.ok[found.rows]]
      if len(aside) and name != "leave_out":  # it is left out already
        row = int(aside[0])
        raise InputError(
          f"{option} names row {row:,} (id {pool.id[row]!r}), which was set aside:"
          f" {pool.reason[row]}. Take such rows ({len(aside):,}) out of the list."
        )
      config = {**config, name: found.rows.tolist()}
      notes += [f"{option}: {note}" for note in found.notes]
  for note in notes:
    run.say(f"Warning: {note}", once=True)
  return config, tuple(notes)


def check_lists(run: Run, **changes: Any) -> None:
  """Refuses, before anything is trained, lists that do not fit the checked pool."""
  name_rows(run, make_config(run, **changes))


def read_bound(value: Any) -> Any:
  """A value of select.bound, where a number may be given as text."""
  with contextlib.suppress(TypeError, ValueError):
    return float(value)
  return value


def predict_columns(cfg: Any) -> list[str]:
  """Columns that the score table of this config has, made here or brought in."""
  if cfg.score.table is not None:
    return list_columns(Path(cfg.score.table))
  return ["supervised", "seed", "loss", *base_model.scored_signals(cfg)]


def check_names(run: Run, there: Collection[str] | None = None, **changes: Any) -> None:
  """Refuses, before anything is scored, signals and groups that there will not be.

  Args:
    run: the invocation.
    there: columns of the score table; None for those that this config makes.
    **changes: to the settings of the config's section, as in `make_config`.

  Raises:
    InputError: the selection reads a column that the score table lacks, or its
      settings are none.
  """
  there = predict_columns(run.cfg) if there is None else there
  config = _draft_config(run.cfg, **changes)
  check_signals(list_signals(config), there, base_model.scored_signals(run.cfg))
  grouping.check_form(config["groups"], {*POOL_COLUMNS, *there})


def check_pool(run: Run) -> None:
  """Refuses, before anything is tuned, what the checked pool cannot give.

  Raises:
    InputError: a budget that leaves no row, a list that names what is no usable row,
      or groups by a column of the pool that hardly repeats.
  """
  check_lists(run)
  config, pool = make_config(run), base_model.open_pool(run)
  rows = np.flatnonzero(pool.ok)
  amounts = {"select.budget": run.cfg.select.budget}
  if needs_seed(run):
    amounts["seed.rows"] = run.cfg.seed.rows
  for name, amount in amounts.items():
    budget.resolve(amount, len(rows), pool.tokens[rows], name)
  for name in grouping.split_form(config["groups"]):
    if name in POOL_COLUMNS:
      values = getattr(pool, name)[rows]
      grouping.by_column(values, "" if name == "source" else name)


def read_eligible(
  run: Run, config: dict[str, Any], rng: int, embeddings: bool = False
) -> Eligible:
  """Reads what the config asks for.

  Args:
    run: of the workdir with pool and scores.
    config: from `make_config`, or from the provenance of a selection, whose lists
      are numbers of rows, or ids where an older version made it.
    rng: seed of the clusters.
    embeddings: whether they are wanted whatever the config asks for.

  Raises:
    InputError: a signal or column that is not there, or a list's row that is not
      scored.
  """
  options, wanted = make_options(config), list_signals(config)
  pool, table = base_model.open_pool(run), read_scores(run.workdir.scores.path)
  strategy = strategies.find_strategy(options.strategy)
  doubted = find_held_out(options)
  check_signals(wanted, table.columns, base_model.scored_signals(run.cfg))
  finite = np.isfinite(table.signal(config["signal"]))
  for name in strategy.signals:
    finite &= np.isfinite(table.signal(name))
  rows = table.row[finite]
  vectors = None
  if embeddings or needs_embeddings(options):
    vectors = table.embeddings()
    vectors = vectors if finite.all() else vectors[finite]
    if not vectors.shape[1]:  # a table made elsewhere may hold none
      vectors = None
  left_out = _mark(pool, rows, config["leave_out"], "leave_out")
  apart = None
  if share := config.get("development"):
    apart = held_out.hold_out(read_keys(pool, rows), share, rng)
    left_out = apart if left_out is None else left_out | apart
  scores = Scores(
    necessity=table.signal(config["signal"])[finite],
    key=read_keys(pool, rows),
    signals={
      name: table.signal(name)[finite]
      for name, option in wanted.items()
      if option != "select.signal"
    },
    embeddings=vectors,
    seen=table.signal("seed")[finite],
    tokens=pool.tokens[rows],
    like=_mark(pool, rows, config["like"], "like"),
    forced_in=_mark(pool, rows, config["force_in"], "force_in"),
    left_out=left_out,
    held_out=apart,
    doubt=read_doubt(run, doubted, rows) if doubted else None,
    answer=pool.answer[rows] if pool.has_answers else None,
  )
  groups = _make_groups(run, pool, table, finite, scores, options, rng)
  return Eligible(pool, rows, scores, groups, options)


def _mark(
  pool: PoolTable, rows: Int[np.ndarray, " N"], listed: list[Any], name: str
) -> Bool[np.ndarray, " N"] | None:
  if not listed:
    return None
  option = f"select.{name}"
  if isinstance(listed[0], int):
    wanted = np.array(listed, np.int64)
  else:
    entries = [Reference(e) if isinstance(e, str) else e for e in listed]
    wanted = find_rows(pool, entries, option).rows
  other = np.setdiff1d(wanted, rows)
  if len(other) and name != "leave_out":  # what is not scored is left out already
    row = int(other[0])
    raise InputError(
      f"{option} names row {row:,} (id {pool.id[row]!r}), whose score is not a number."
      f" Take such rows ({len(other):,}) out of the list."
    )
  return np.isin(rows, wanted)


class _Columns(Mapping):
  """Columns that rows may be grouped by, each read when it is asked for."""

  def __init__(self, pool: PoolTable, table: ScoreTable, finite: np.ndarray):
    self._pool, self._table, self._finite = pool, table, finite
    self._rows = table.row[finite]

  def __getitem__(self, name: str) -> np.ndarray:
    if name in POOL_COLUMNS:
      return getattr(self._pool, name)[self._rows]
    return self._table.columns[name][self._finite]

  def __iter__(self) -> Iterator[str]:
    return iter(dict.fromkeys([*POOL_COLUMNS, *self._table.columns]))

  def __len__(self) -> int:
    return len(list(iter(self)))


def _make_groups(run, pool, table, finite, scores, options, rng) -> grouping.Groups:
  def clusters():
    found = read_clusters(run, pool, table, options.clusters, rng)
    own = found.index[finite]
    if bad := int((own < 0).sum()):
      raise InputError(
        f"The embeddings of {bad:,} of {len(own):,} scored rows are not finite; score"
        " again, or group by something else than kmeans."
      )
    return found._replace(index=own)

  return grouping.make_groups(
    options.groups,
    _Columns(pool, table, finite),
    rank_normalise(scores.necessity, scores.flag("seen")),
    clusters,
    options.strata,
  )
