"""Describes the arms of a workdir: what they are, what they hold, and how they did."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from mllm_selector_jax.pipeline.exports import FORMATS, list_stale
from mllm_selector_jax.runs import arm_pointers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.runs.workdir import Workdir

_HEADS = ("arm", "is", "rows", "size", "stages", "score", "age", "exports")
_ALIGN_RIGHT = ("rows", "size", "score", "age")
_NONE = "-"


class ArmLine(NamedTuple):
  """One arm of a workdir.

  Attributes:
    name: Name of its folder.
    pointers: The pointers that name it, such as "main".
    rows: Number of kept rows; None without a selection.
    size: Bytes of its files on this machine.
    stages: The stages that are done, such as "selected".
    score: Macro accuracy, and the bounds of its interval; None if it is not evaluated.
    written: Time of the last change, in seconds since 1970; None if it is empty.
    exports: Formats of its exports.
    stale: Formats of its exports that were made from an older selection.
  """

  name: str
  pointers: tuple[str, ...]
  rows: int | None
  size: int
  stages: tuple[str, ...]
  score: tuple[float, float, float] | None
  written: float | None
  exports: tuple[str, ...]
  stale: tuple[str, ...]


def list_arms(run: Run) -> list[ArmLine]:
  """Describe all arms of the workdir, those that a pointer names first."""
  work = run.workdir
  pointers = arm_pointers.list_pointers(work.arms)
  lines = [_describe(run, name, pointers) for name in arm_pointers.list_arms(work.arms)]
  return sorted(lines, key=lambda line: (not line.pointers, line.pointers, line.name))


def measure_folder(folder: Path) -> int:
  """Return the bytes of the files of a folder, without following links."""
  paths = (path for path in folder.rglob("*") if not path.is_symlink())
  return sum(path.stat().st_size for path in paths if path.is_file())


def format_size(size: float) -> str:
  """Format bytes as a disk is sold, 10^9 to a GB."""
  value = float(size)
  for unit in ("B", "KB", "MB"):
    if value < 1000:
      return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
    value /= 1000
  return f"{value:,.1f} GB"


def format_arms(lines: list[ArmLine], now: float | None = None) -> list[str]:
  """Format a table of the arms, as lines of text.

  Args:
    lines: The arms.
    now: The time to which ages are counted, in seconds since 1970; None for now.
  """
  if not lines:
    return ["arms: there is none yet; `mllm-selector select` makes them."]
  now = time.time() if now is None else now
  cells = [list(_HEADS)] + [_format_cells(line, now) for line in lines]
  # A column in which no arm has anything is left out.
  used = [n for n in range(len(_HEADS)) if any(row[n] != _NONE for row in cells[1:])]
  widths = {n: max(len(row[n]) for row in cells) for n in used}
  table = []
  for row in cells:
    padded = [
      row[n].rjust(widths[n]) if _HEADS[n] in _ALIGN_RIGHT else row[n].ljust(widths[n])
      for n in used
    ]
    table.append("  ".join(padded).rstrip())
  total = format_size(sum(line.size for line in lines))
  return [*table, f"{len(lines)} {'arms' if len(lines) > 1 else 'arm'}, {total}"]


def _describe(run: Run, name: str, pointers: dict[str, str]) -> ArmLine:
  work, folder = run.workdir, run.workdir.arms / name
  made = {
    "selected": work.selection(name),
    "tuned": work.tuned(name),
    "evaluated": work.evaluation(name),
  }
  done = {stage: a for stage, a in made.items() if a.provenance() is not None}
  stages = [
    s if s in done else f"{s} in part" for s in made if _has(made[s], s in done)
  ]
  markers = [artifact.marker for artifact in done.values()]
  return ArmLine(
    name=name,
    pointers=tuple(key for key, arm in pointers.items() if arm == name),
    rows=_count_rows(work, name) if "selected" in done else None,
    size=measure_folder(folder),
    stages=tuple(stages),
    score=_read_score(work, name) if "evaluated" in done else None,
    written=max((_read_time(run, marker) for marker in markers), default=None),
    exports=tuple(f for f in FORMATS if work.export(name, f).path.is_dir()),
    stale=tuple(list_stale(work, name)),
  )


def _has(artifact: Any, done: bool) -> bool:
  return done or artifact.partial.is_dir()


def _count_rows(work: Workdir, name: str) -> int:
  summary = work.selection(name).path / "summary.json"
  return int(json.loads(summary.read_text())["kept"])


def _read_score(work: Workdir, name: str) -> tuple[float, float, float] | None:
  path = work.evaluation(name).path / "results.json"
  macro = json.loads(path.read_text()).get("macro")
  return (macro["value"], macro["low"], macro["high"]) if macro else None


def _read_time(run: Run, marker: Path) -> float:
  # The copy of a bucket on this machine is as old as the copying.
  return run.bucket.read_time(marker) if run.bucket else marker.stat().st_mtime


def _format_cells(line: ArmLine, now: float) -> list[str]:
  score = _NONE
  if line.score:
    score = "{:.3f} [{:.3f}, {:.3f}]".format(*line.score)
  exports = [f"{f} (stale)" if f in line.stale else f for f in line.exports]
  return [
    line.name,
    ", ".join(line.pointers) or _NONE,
    _NONE if line.rows is None else f"{line.rows:,}",
    format_size(line.size),
    ", ".join(line.stages) or _NONE,
    score,
    _NONE if line.written is None else _format_age(now - line.written),
    ", ".join(exports) or _NONE,
  ]


def _format_age(seconds: float) -> str:
  for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
    if seconds >= length:
      return f"{seconds / length:.0f} {unit}"
  return "now"
