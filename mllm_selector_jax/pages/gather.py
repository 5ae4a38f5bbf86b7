"""Reads a workdir's artifacts into plain dictionaries and arrays.

Everything by row is an array over the whole pool, in the pool's order. What has
not been made yet is None, so that the page can say so.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.pages import tables
from mllm_selector_jax.runs.times import read_times
from mllm_selector_jax.selection.strategies import CONTROL
from mllm_selector_jax.types import InputError, RunError


@dataclasses.dataclass(frozen=True)
class Pool:
  """What the check found, by row.

  Attributes:
    tokens: length in tokens as the model reads the row; 0 where unknown.
    turns: rounds of question and answer.
    has_image: whether the row names an image.
    aside: whether the row was set aside; `reason` says why.
    images: how many different image files the usable rows hold.
    summary: what the check wrote itself.
  """

  path: Path
  source: tables.Labels
  reason: tables.Labels
  tokens: Int[np.ndarray, " N"]
  turns: Int[np.ndarray, " N"]
  has_image: Bool[np.ndarray, " N"]
  truncated: Bool[np.ndarray, " N"]
  aside: Bool[np.ndarray, " N"]
  images: int
  summary: dict[str, Any]

  @property
  def rows(self) -> int:
    return len(self.aside)


@dataclasses.dataclass(frozen=True)
class Selection:
  """What was decided about every row of the pool."""

  kept: Bool[np.ndarray, " N"]
  rank: Int[np.ndarray, " N"]  # -1: none
  group: Int[np.ndarray, " N"]  # -1: none
  necessity: Float[np.ndarray, " N"]  # NaN: none, as below
  gain: Float[np.ndarray, " N"]
  threshold: Float[np.ndarray, " N"]
  reason: tables.Labels
  group_names: dict[int, str]
  summary: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Arm:
  """One selection with its tuning and its evaluation, as far as they are made.

  Attributes:
    curve: steps and losses of the tuning.
    results: the evaluation's `results.json`.
    scores: the score of each question, by task and id.
  """

  name: str
  selection: Selection | None
  curve: tuple[np.ndarray, np.ndarray] | None
  results: dict[str, Any] | None
  scores: dict[tuple[str, str], float]
  has_records: bool
  has_model: bool

  @property
  def strategy(self) -> str:
    if self.selection is None:
      return self.name
    return str(self.selection.summary.get("strategy", self.name))

  @property
  def budget(self) -> str:
    if self.selection is None:
      return "unknown"
    return str(self.selection.summary.get("budget", "unknown"))


@dataclasses.dataclass(frozen=True)
class Run:
  """All that the page is made from.

  Attributes:
    loss: the seed model's loss of each row, NaN where there is none.
    seed_curve: steps and losses of the seed model's tuning.
    provenance: each artifact's own account, by its place in the workdir.
    measures: of diversity, of the main arm; None where that was made again since.
    times: seconds by artifact, of those that a whole run made.
    search: the trials that the settings were chosen by, None without a search.
    rounds: of later rounds, their number and their evaluation's `results.json`.
  """

  pool: Pool
  loss: Float[np.ndarray, " N"] | None
  arms: list[Arm]
  seed_curve: tuple[np.ndarray, np.ndarray] | None
  provenance: dict[str, dict[str, Any]]
  measures: dict[str, Any] | None = None
  times: dict[str, float] = dataclasses.field(default_factory=dict)
  search: dict[str, Any] | None = None
  rounds: tuple[tuple[int, dict[str, Any]], ...] = ()

  @property
  def main(self) -> Arm | None:
    """The arm that the page is about: `main`, or the first that is no control."""
    for arm in self.arms:
      if arm.name == "main":
        return arm
    chosen = [arm for arm in self.arms if arm.strategy != CONTROL]
    return (chosen or self.arms or [None])[0]

  def control_of(self, arm: Arm) -> Arm | None:
    """The random arm of the same budget, and of the same seed where named."""
    if arm.strategy == CONTROL or arm.selection is None:
      return None
    controls = [
      other
      for other in self.arms
      if other.strategy == CONTROL and other.budget == arm.budget
    ]
    same_ending = arm.name.removeprefix(arm.strategy)
    for other in controls:
      if other.name.removeprefix(CONTROL) == same_ending:
        return other
    return controls[0] if controls else None


def read_run(workdir: Path) -> Run:
  """Reads the workdir.

  Raises:
    InputError: there is no `pool.parquet`.
    RunError: an artifact is damaged.
  """
  path = workdir / "pool.parquet"
  if not path.is_file():
    raise InputError(
      f"{path} is not there, so there is nothing to report; run"
      " `mllm-selector check` (or `run`) with this --workdir first."
    )
  pool = read_pool(path)
  folders = sorted(p for p in workdir.glob("arms/*") if p.is_dir())
  # Beside the main arm its control, then all others by name.
  order = {"main": 0, CONTROL: 1}
  folders.sort(key=lambda folder: (order.get(folder.name, 2), folder.name))
  folders = [folder for folder in folders if any(folder.glob("*/*"))]
  provenance = read_provenance(workdir)
  return Run(
    pool=pool,
    loss=read_losses(workdir / "scores", pool.rows),
    arms=[read_arm(folder, pool.rows) for folder in folders],
    seed_curve=read_curve(workdir / "seed" / "metrics.jsonl"),
    provenance=provenance,
    measures=read_measures(workdir, provenance),
    times=read_times(workdir / "logs"),
    search=tables.read_json(workdir / "search" / "result" / "trials.json"),
    rounds=tuple(read_rounds(workdir)),
  )


def read_rounds(workdir: Path) -> list[tuple[int, dict[str, Any]]]:
  """What the main arm of each later round reached, where it was evaluated."""
  found = []
  for path in workdir.glob("rounds/*/arms/main/evaluation/results.json"):
    number = path.parents[3].name
    results = tables.read_json(path)
    if number.isdigit() and results and results.get("macro"):
      found.append((int(number), results))
  return sorted(found, key=lambda each: each[0])


def read_measures(
  workdir: Path, provenance: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
  """`measures.json`, where it is of the selection that is there now."""
  measured = (provenance.get("measures") or {}).get("inputs") or {}
  chosen = provenance.get("arms/main/selection") or {}
  if not measured or measured.get("selection") != chosen.get("digest"):
    return None
  return tables.read_json(workdir / "measures" / "measures.json")


def read_pool(path: Path) -> Pool:
  wanted = ("row", "source", "images", "image_hashes", "turns", "tokens", "reason")
  table = tables.read_table(path, (*wanted, "status", "truncated"))
  rows = table.num_rows
  place = np.argsort(tables.numbers(table, "row", 0, np.int64), kind="stable")
  table = table if np.all(place == np.arange(rows)) else table.take(place)
  reason = tables.labels(table, "reason")
  return Pool(
    path=path,
    source=tables.labels(table, "source"),
    reason=reason,
    tokens=tables.numbers(table, "tokens", 0, np.int64),
    turns=tables.numbers(table, "turns", 0, np.int64),
    has_image=tables.is_present(table, "images"),
    truncated=tables.numbers(table, "truncated", 0, np.int64) > 0,
    aside=reason.codes >= 0,
    images=tables.count_distinct(table, "image_hashes", reason.codes < 0),
    summary=tables.read_json(path.with_name("pool_summary.json")) or {},
  )


def read_arm(folder: Path, rows: int) -> Arm:
  predictions = folder / "evaluation" / "predictions.jsonl"
  chosen = folder / "selection" / "selection.parquet"
  return Arm(
    name=folder.name,
    selection=read_selection(chosen, rows) if chosen.is_file() else None,
    curve=read_curve(folder / "tuned" / "metrics.jsonl"),
    results=tables.read_json(folder / "evaluation" / "results.json"),
    scores={
      (str(line.get("task")), str(line.get("id"))): float(line["score"])
      for line in tables.read_lines(predictions)
      if line.get("score") is not None
    },
    has_records=(folder / "selection" / "selected.json").is_file(),
    has_model=(folder / "tuned" / "hf").is_dir(),
  )


def read_selection(path: Path, rows: int) -> Selection:
  wanted = ("row", "kept", "rank", "group", "necessity", "gain", "threshold")
  table = tables.read_table(path, (*wanted, "reason", "group_name"))
  row = tables.numbers(table, "row", 0, np.int64)
  if len(row) and row.max() >= rows:
    raise RunError(
      f"{path} speaks of row {row.max():,}, the pool has {rows:,}: they are of"
      " different pools. Run the select stage again."
    )

  def spread(values: np.ndarray, fill: Any) -> np.ndarray:
    whole = np.full(rows, fill, values.dtype)
    whole[row] = values
    return whole

  group = spread(tables.numbers(table, "group", -1, np.int64), -1)
  reason, named = tables.labels(table, "reason"), tables.labels(table, "group_name")
  named = tables.Labels(spread(named.codes, tables.NO_LABEL), named.names)
  groups, first = np.unique(group, return_index=True)
  return Selection(
    kept=spread(tables.numbers(table, "kept", 0, np.int64) > 0, False),
    rank=spread(tables.numbers(table, "rank", -1, np.int64), -1),
    group=group,
    necessity=spread(tables.numbers(table, "necessity", np.nan, np.float64), np.nan),
    gain=spread(tables.numbers(table, "gain", np.nan, np.float64), np.nan),
    threshold=spread(tables.numbers(table, "threshold", np.nan, np.float64), np.nan),
    reason=tables.Labels(spread(reason.codes, tables.NO_LABEL), reason.names),
    group_names={
      int(g): named.names[named.codes[n]]
      for g, n in zip(groups, first, strict=True)
      if g >= 0 and named.codes[n] >= 0
    },
    summary=tables.read_json(path.with_name("summary.json")) or {},
  )


def read_losses(folder: Path, rows: int) -> Float[np.ndarray, " N"] | None:
  losses = None
  for part in sorted(folder.glob("part-*.parquet")):
    table = tables.read_table(part, ("row", "loss"))
    losses = np.full(rows, np.nan) if losses is None else losses
    row = tables.numbers(table, "row", 0, np.int64)
    if len(row) and row.max() >= rows:
      raise RunError(f"{part} is of another pool. Run the score stage again.")
    losses[row] = tables.numbers(table, "loss", np.nan, np.float64)
  return losses


def read_curve(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
  """Steps and losses of a training; lines without a number are left out."""
  points = [
    (line["step"], line["loss"])
    for line in tables.read_lines(path)
    if isinstance(line.get("step"), int) and isinstance(line.get("loss"), float | int)
  ]
  if not points:
    return None
  steps, losses = np.asarray(points, np.float64).T
  return steps, losses


def read_provenance(workdir: Path) -> dict[str, dict[str, Any]]:
  """Each artifact's own account; not that of an earlier report."""
  deeper = ("clusters/*/provenance.json", "arms/*/*/provenance.json")
  deeper += ("doubts/*/provenance.json", "rounds/*/*/provenance.json")
  deeper += ("rounds/*/arms/*/*/provenance.json", "search/*/provenance.json")
  patterns = ("*.provenance.json", "*/provenance.json", *deeper)
  accounts = {}
  for path in sorted(path for pattern in patterns for path in workdir.glob(pattern)):
    if path.parent.suffix in (".partial", ".old"):
      continue
    place = path.relative_to(workdir).as_posix().removesuffix("provenance.json")
    accounts[place.rstrip("/.")] = tables.read_json(path) or {}
  accounts.pop("report", None)
  return accounts
