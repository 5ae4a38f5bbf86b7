"""Reads the artifacts of a workdir into plain dictionaries and arrays.

Arrays by row cover the whole pool, in the pool's order. An artifact that has not been
made yet is None, so that the page can say so.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.pages import tables
from mllm_selector_jax.pages.shown_arms import list_shown
from mllm_selector_jax.runs.times import read_times
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.selection.strategies import CONTROL
from mllm_selector_jax.types import InputError, RunError


@dataclasses.dataclass(frozen=True)
class Pool:
  """The checked pool, by row.

  Attributes:
    tokens: Length in tokens as the model reads the row; 0 if unknown.
    turns: Rounds of question and answer.
    has_image: Whether the row names an image.
    aside: Whether the row was set aside; `reason` says why.
    images: Number of different image files in the usable rows.
    summary: The content of `pool_summary.json`.
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
  """The decision about every row of the pool."""

  kept: Bool[np.ndarray, " N"]
  rank: Int[np.ndarray, " N"]  # -1: none
  group: Int[np.ndarray, " N"]  # -1: none
  necessity: Float[np.ndarray, " N"]  # NaN: none, as below
  gain: Float[np.ndarray, " N"]
  threshold: Float[np.ndarray, " N"]
  reason: tables.Labels
  group_names: dict[int, str]
  summary: dict[str, Any]
  judged: Bool[np.ndarray, " N"]  # whether the seed model knows the row's group
  confirmed: Bool[np.ndarray, " N"]  # whether it then gives the row's answer itself
  doubt: tables.Labels  # why a kept row is doubtful; no label if it is not


@dataclasses.dataclass(frozen=True)
class Arm:
  """One selection with its tuning and its evaluation; missing parts are None.

  Attributes:
    name: The pointer that names the arm, such as "main"; otherwise as `folder`.
    folder: Name of its folder in `arms/`.
    curve: Steps and losses of the tuning.
    results: `results.json` of the evaluation.
    scores: The score of each question, by task and id.
  """

  name: str
  selection: Selection | None
  curve: tuple[np.ndarray, np.ndarray] | None
  results: dict[str, Any] | None
  scores: dict[tuple[str, str], float]
  has_records: bool
  has_model: bool
  folder: str = ""

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
  """Everything that the page is made from.

  Attributes:
    loss: The seed model's loss of each row, NaN if the row has none.
    seed_curve: Steps and losses of the seed model's tuning.
    provenance: Provenance of each artifact, by its path in the workdir.
    measures: Diversity measures of the main arm; None if its selection has been made
      again since.
    times: Seconds by artifact.
    search: The trials of the search; None without a search.
    rounds: For each later round its number and `results.json` of its evaluation.
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
    """Return the arm that the page is about: `main`, or the first other non-control."""
    for arm in self.arms:
      if arm.name == "main":
        return arm
    chosen = [arm for arm in self.arms if arm.strategy != CONTROL]
    return (chosen or self.arms or [None])[0]

  def control_of(self, arm: Arm) -> Arm | None:
    """Return the random arm with the same budget, or None.

    If there are several, that of the main arm is the one named `random`, and that of
    another arm has the same suffix (the seed) in its name.
    """
    if arm.strategy == CONTROL or arm.selection is None:
      return None
    controls = [
      candidate
      for candidate in self.arms
      if candidate.strategy == CONTROL and candidate.budget == arm.budget
    ]
    if arm.name == "main" and controls and controls[0].name == CONTROL:
      return controls[0]
    suffix = arm.folder.removeprefix(arm.strategy)
    for candidate in controls:
      if candidate.folder.removeprefix(CONTROL) == suffix:
        return candidate
    return controls[0] if controls else None


def read_run(workdir: Path) -> Run:
  """Read the artifacts of a workdir.

  Raises:
    InputError: There is no `pool.parquet`.
    RunError: An artifact is damaged.
  """
  path, work = workdir / "pool.parquet", Workdir(workdir)
  if not path.is_file():
    raise InputError(
      f"{path} is not there, so there is nothing to report; run"
      " `mllm-selector check` (or `run`) with this --workdir first."
    )
  pool = read_pool(path)
  provenance = read_provenance(workdir)
  return Run(
    pool=pool,
    loss=read_losses(workdir / "scores", pool.rows),
    arms=[
      read_arm(folder, pool.rows, name) for name, folder in list_shown(work).items()
    ],
    seed_curve=read_curve(workdir / "seed" / "metrics.jsonl"),
    provenance=provenance,
    measures=read_measures(workdir, provenance),
    times=read_times(workdir / "logs"),
    search=tables.read_json(workdir / "search" / "result" / "trials.json"),
    rounds=tuple(read_rounds(workdir)),
  )


def read_rounds(workdir: Path) -> list[tuple[int, dict[str, Any]]]:
  """Return number and results of the later rounds whose main arm was evaluated."""
  rounds = []
  for folder in workdir.glob("rounds/*"):
    number = folder.name
    arm = Workdir(folder).arm("main")
    results = tables.read_json(arm / "evaluation" / "results.json")
    if number.isdigit() and results and results.get("macro"):
      rounds.append((int(number), results))
  return sorted(rounds, key=lambda pair: pair[0])


def read_measures(
  workdir: Path, provenance: dict[str, dict[str, Any]]
) -> dict[str, Any] | None:
  """Read `measures.json`, or return None if it belongs to an older selection."""
  measured = (provenance.get("measures") or {}).get("inputs") or {}
  main = Workdir(workdir).resolve("main")
  chosen = provenance.get(f"arms/{main}/selection") or {}
  if not measured or measured.get("selection") != chosen.get("digest"):
    return None
  return tables.read_json(workdir / "measures" / "measures.json")


def read_pool(path: Path) -> Pool:
  columns = ("row", "source", "images", "image_hashes", "turns", "tokens", "reason")
  table = tables.read_table(path, (*columns, "status", "truncated"))
  rows = table.num_rows
  order = np.argsort(tables.numbers(table, "row", 0, np.int64), kind="stable")
  table = table if np.all(order == np.arange(rows)) else table.take(order)
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


def read_arm(folder: Path, rows: int, name: str) -> Arm:
  predictions = folder / "evaluation" / "predictions.jsonl"
  chosen = folder / "selection" / "selection.parquet"
  return Arm(
    name=name,
    folder=folder.name,
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
  columns = ("row", "kept", "rank", "group", "necessity", "gain", "threshold")
  names = (*columns, "reason", "group_name", "judged", "confirmed", "doubt")
  table = tables.read_table(path, names)
  row = tables.numbers(table, "row", 0, np.int64)
  if len(row) and row.max() >= rows:
    raise RunError(
      f"{path} has row {row.max():,}, but the pool has only {rows:,} rows: they belong"
      " to different pools. Run the select stage again."
    )

  def spread(values: np.ndarray, fill: Any) -> np.ndarray:
    values_by_row = np.full(rows, fill, values.dtype)
    values_by_row[row] = values
    return values_by_row

  group = spread(tables.numbers(table, "group", -1, np.int64), -1)
  reason, group_names, doubt = (
    tables.labels(table, name) for name in ("reason", "group_name", "doubt")
  )
  group_names = tables.Labels(
    spread(group_names.codes, tables.NO_LABEL), group_names.names
  )
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
      int(g): group_names.names[group_names.codes[n]]
      for g, n in zip(groups, first, strict=True)
      if g >= 0 and group_names.codes[n] >= 0
    },
    summary=tables.read_json(path.with_name("summary.json")) or {},
    judged=spread(tables.numbers(table, "judged", 0, np.int64) > 0, False),
    confirmed=spread(tables.numbers(table, "confirmed", 0, np.int64) > 0, False),
    doubt=tables.Labels(spread(doubt.codes, tables.NO_LABEL), doubt.names),
  )


def read_losses(folder: Path, rows: int) -> Float[np.ndarray, " N"] | None:
  losses = None
  for part in sorted(folder.glob("part-*.parquet")):
    table = tables.read_table(part, ("row", "loss"))
    losses = np.full(rows, np.nan) if losses is None else losses
    row = tables.numbers(table, "row", 0, np.int64)
    if len(row) and row.max() >= rows:
      raise RunError(f"{part} belongs to another pool. Run the score stage again.")
    losses[row] = tables.numbers(table, "loss", np.nan, np.float64)
  return losses


def read_curve(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
  """Read steps and losses of a training; lines without numbers are skipped."""
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
  """Read the provenance of each artifact, except that of an earlier report."""
  deeper = ("clusters/*/provenance.json", "arms/*/*/provenance.json")
  deeper += ("doubts/*/provenance.json", "rounds/*/*/provenance.json")
  deeper += ("rounds/*/arms/*/*/provenance.json", "search/*/provenance.json")
  patterns = ("*.provenance.json", "*/provenance.json", *deeper)
  accounts = {}
  for path in sorted(path for pattern in patterns for path in workdir.glob(pattern)):
    if path.parent.suffix in (".partial", ".old"):
      continue
    if path.parents[1].is_symlink():  # an arm that is listed under its own name
      continue
    name = path.relative_to(workdir).as_posix().removesuffix("provenance.json")
    accounts[name.rstrip("/.")] = tables.read_json(path) or {}
  accounts.pop("report", None)
  return accounts
