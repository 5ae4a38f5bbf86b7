"""What a selection is made from: scored rows, their groups, ids and options."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from mllm_selector_jax.data.table import PoolTable
from mllm_selector_jax.scoring.table import ScoreTable, read_scores
from mllm_selector_jax.selection import groups as grouping
from mllm_selector_jax.selection import strategies
from mllm_selector_jax.selection.candidates import Scores
from mllm_selector_jax.selection.necessity import rank_normalise
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.stages import base
from mllm_selector_jax.stages.context import Run, plain
from mllm_selector_jax.types import InputError

ID_LISTS = ("force_in", "leave_out", "like")
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
  """The config's section with changes, ids and shares read from their files.

  So a file's contents count as the setting, not its name.
  """
  config = {**plain(run.cfg.select), **changes}
  del config["control"], config["sweep"]
  for name in ID_LISTS:
    config[name] = read_ids(config[name], f"select.{name}")
  config["target_shares"] = read_shares(config["target_shares"])
  if config["like"] and config["target"] != "like":
    raise InputError(
      f"select.like is given and select.target is {config['target']!r}; samples to be"
      ' like go with target "like".'
    )
  return config


def make_options(config: dict[str, Any]) -> SelectOptions:
  """The options of a selection from the config's section."""
  names = {field.name for field in dataclasses.fields(SelectOptions)}
  given = {name: value for name, value in config.items() if name in names}
  given["competence"] = given["competence"] or None
  return SelectOptions(**given)


def read_ids(value: Any, name: str) -> list[str]:
  """Ids from a list, a comma-separated text, or a file.

  A file has one id a line, or is JSON: a list of ids or of records with ids.

  Raises:
    InputError: the file is none of these.
  """
  if not value:
    return []
  if not isinstance(value, str):
    return [str(each) for each in value]
  path = Path(value)
  if not path.is_file():
    if "/" in value or path.suffix in (".txt", ".json", ".jsonl"):
      raise InputError(f"{name}={value}: there is no such file.")
    return [part.strip() for part in value.split(",") if part.strip()]
  lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
  try:
    if lines and lines[0].startswith("["):
      found = json.loads("\n".join(lines))
    elif lines and lines[0].startswith("{"):
      found = [json.loads(line) for line in lines]
    else:
      found = lines
  except ValueError as error:
    raise InputError(f"{name}={value}: not whole JSON ({error}).") from error
  ids = [each.get("id") if isinstance(each, dict) else each for each in found]
  for place, each in enumerate(ids):
    if not isinstance(each, str | int):
      raise InputError(
        f"{name}={value}: entry {place} has no id; the file holds an id a line, or a"
        " JSON list of ids or of records with ids."
      )
  return [str(each) for each in ids]


def read_shares(value: Any) -> dict[str, float] | None:
  """Target shares by group name, from a dict, JSON text or a JSON file.

  Raises:
    InputError: it is none of these.
  """
  if not value:
    return None
  if isinstance(value, str):
    try:
      text = Path(value).read_text() if Path(value).is_file() else value
      value = json.loads(text)
    except (OSError, ValueError) as error:
      raise InputError(
        f"select.target_shares={value}: no JSON and no file of it ({error}); give"
        ' {"group": share, ...}, in the config or in a file.'
      ) from error
  number = (int, float)
  if not isinstance(value, Mapping) or not all(
    isinstance(share, number) and not isinstance(share, bool)
    for share in value.values()
  ):
    raise InputError(
      f"select.target_shares is {value!r}; it gives a number for each group's name."
    )
  return {str(name): float(share) for name, share in value.items()}


def read_eligible(run: Run, config: dict[str, Any]) -> Eligible:
  """Reads what the config asks for.

  Raises:
    InputError: a signal or column that is not there, or an id that is no row's.
  """
  options = make_options(config)
  pool, table = base.open_pool(run), read_scores(run.workdir.scores.path)
  strategy = strategies.STRATEGIES[options.strategy]
  own = f"select.strategy {options.strategy}"
  wanted = {name: own for name in strategy.signals}
  bounds = {"competence": "accuracy", "visual": "visual"}
  for option, name in bounds.items():
    if getattr(options, option):
      wanted.setdefault(name, f"select.{option}")
  for name, option in wanted.items():
    if name not in table.columns:
      raise InputError(
        f"{option} needs the signal {name!r}, which was not scored; add it to"
        f" score.signals and run `mllm-selector score` again (it has"
        f" {', '.join(run.cfg.score.signals)})."
      )
  finite = np.isfinite(table.signal(config["signal"]))
  for name in strategy.signals:
    finite &= np.isfinite(table.signal(name))
  rows = table.row[finite]
  embeddings = None
  if strategy.embeddings or options.duplicates or "kmeans" in options.groups:
    embeddings = table.embeddings()[finite]
    if not embeddings.shape[1]:  # a table made elsewhere may hold none
      embeddings = None
  scores = Scores(
    necessity=table.signal(config["signal"])[finite],
    key=np.array([int(value[:16], 16) for value in pool.hash[rows]], np.uint64),
    signals={name: table.signal(name)[finite] for name in wanted},
    embeddings=embeddings,
    seen=table.signal("seed")[finite],
    tokens=pool.tokens[rows],
    like=_mark(pool, rows, config["like"], "like"),
    forced_in=_mark(pool, rows, config["force_in"], "force_in"),
    left_out=_mark(pool, rows, config["leave_out"], "leave_out"),
  )
  groups = _make_groups(run, pool, table, finite, scores, options)
  return Eligible(pool, rows, scores, groups, options)


def _mark(pool, rows, ids: list[str], name: str) -> Bool[np.ndarray, " N"] | None:
  if not ids:
    return None
  wanted, own = set(ids), pool.id[rows]
  unknown = wanted - set(own)
  if name == "leave_out":  # a row that is set aside is left out already
    unknown -= set(pool.id)
  if unknown := sorted(unknown):
    raise InputError(
      f"select.{name} names {unknown[0]!r}, which is no scored row's id"
      f" ({len(unknown)} such); take ids from pool.parquet."
    )
  return np.array([each in wanted for each in own])


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


_LAST: dict[tuple, grouping.Groups] = {}


def _make_groups(run, pool, table, finite, scores, options) -> grouping.Groups:
  """The groups; the arms of one run share the last ones that were made."""
  key = (
    run.workdir.scores.digest(),
    run.workdir.pool.digest(),
    (options.groups, options.clusters, options.strata),
    run.cfg.rng_seed,
    finite.tobytes(),
    scores.necessity.tobytes() if "necessity" in options.groups else b"",
  )
  if key not in _LAST:
    made = grouping.make_groups(
      options.groups,
      _Columns(pool, table, finite),
      rank_normalise(scores.necessity, scores.flag("seen")),
      scores.embeddings,
      scores.key,
      options.clusters,
      options.strata,
      run.cfg.rng_seed,
    )
    _LAST.clear()
    _LAST[key] = made
  return _LAST[key]
