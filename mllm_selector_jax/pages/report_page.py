"""Fills the template of the page with figures, charts and samples."""

import functools
import math
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from mllm_selector_jax.data.images.image_folders import AnyFolders
from mllm_selector_jax.evaluation.intervals import (
  Difference,
  PairedDifference,
  paired_difference,
)
from mllm_selector_jax.pages import (
  findings,
  gather,
  picks,
  plots,
  provenance,
  samples,
)
from mllm_selector_jax.pages.gather import Arm, Run, Selection
from mllm_selector_jax.pages.page_templates import make_environment
from mllm_selector_jax.pages.provenance import DASH
from mllm_selector_jax.pipeline import exports
from mllm_selector_jax.pipeline.heldout_models import add_seconds
from mllm_selector_jax.pipeline.measure_lines import format_notes
from mllm_selector_jax.pipeline.search.search_table import list_lines
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.selection.bounds import BOUNDS

MOST_BYTES = 10_000_000  # of the whole page
MOST_ARMS = 6  # in a chart or in the columns of a table
MOST_LINES = 60  # of a table; the rest is collapsed
MOST_SHOWN_GROUPS = 12  # of the table of groups; the chart has more
MOST_CARDS = 8  # of a kind; the rest is collapsed
MOST_FOLDED = 500  # lines of the collapsed rest
_PART = dict.fromkeys(("value", "low", "high", "count", "correct", "metric"))
ALL_TASKS, ALL_QUESTIONS = "mean of the tasks", "all questions"


def render(workdir: Path, images: AnyFolders, title: str) -> str:
  run = gather.read_run(workdir)
  content = collect(run, images)
  content["stale_exports"] = exports.list_warnings(Workdir(workdir))
  template = _environment().get_template("report.html.j2")
  # The length of everything shown is limited, so the page should be small enough. If
  # it is not, leave out the pictures first, and then the samples.
  for words in ("", "Pictures were left out", "Samples were left out"):
    if words.startswith("Pictures"):
      content["samples"] = samples.make_cards(run.pool, _chosen(run), None, _picks(run))
    elif words:
      content["samples"] = []
    content["shortened"] = words
    html = template.render(title=title, **content)
    if len(html.encode()) < MOST_BYTES:
      return html
  raise AssertionError(f"a report of {len(html):,} characters")


def collect(run: Run, images: AnyFolders) -> dict[str, Any]:
  """Return all variables of the template."""
  main = run.main
  control = run.control_of(main) if main else None
  comparison = (
    paired_difference(main.scores, control.scores) if main and control else None
  )
  selection = _chosen(run)
  return {
    "pool": run.pool,
    "main": main,
    "control": control,
    "comparison": comparison,
    "arms": [_arm_line(run, arm) for arm in run.arms],
    "shown_arms": _shown_arms(run),
    "results": result_lines(_shown_arms(run)),
    "totals": (ALL_TASKS, ALL_QUESTIONS),
    "differences": _differences(comparison),
    "chosen": _chosen_content(run),
    "measured": _measured(run),
    "trials": list_lines(run.search) if run.search else [],
    "verdict": ((run.search or {}).get("verdict") or {}).get("statement", ""),
    "rounds": run.rounds,
    "others": [_other_content(run, arm) for arm in run.arms if arm is not main][:40],
    "sources": findings.source_lines(run.pool, selection),
    "aside": _aside_content(run),
    "samples": samples.make_cards(run.pool, selection, images, _picks(run)),
    "charts": _charts(run, comparison),
    "unasked": _unasked(_shown_arms(run)),
    "scored": None if run.loss is None else int(np.isfinite(run.loss).sum()),
    "pool_facts": findings.pool_facts(run.pool),
    "accounts": provenance.list_accounts(run),
    "origins": provenance.list_origins(run),
    "packages": provenance.list_packages(run),
    "MOST_SHOWN_GROUPS": MOST_SHOWN_GROUPS,
    "MOST_LINES": MOST_LINES,
    "MOST_FOLDED": MOST_FOLDED,
    "MOST_CARDS": MOST_CARDS,
  }


def result_lines(arms: list[Arm]) -> dict[str, dict[str, dict[str, Any]]]:
  """Return value, interval and counts, by line of the table and by arm."""
  lines: dict[str, dict[str, dict[str, Any]]] = {}
  for arm in arms:
    if arm.results is None:
      continue
    parts = dict(sorted((arm.results.get("tasks") or {}).items()))
    for name, key in ((ALL_TASKS, "macro"), (ALL_QUESTIONS, "overall")):
      if arm.results.get(key):
        parts[name] = arm.results[key]
    for name, part in parts.items():
      lines.setdefault(name, {})[arm.name] = _PART | part
  totals = {n: lines.pop(n) for n in (ALL_TASKS, ALL_QUESTIONS) if n in lines}
  return lines | totals


def _unasked(arms: list[Arm]) -> list[tuple[str, int, str]]:
  """Return arms whose evaluation set questions aside, how many, and the reasons."""
  lines = []
  for arm in arms:
    refused = (arm.results or {}).get("aside") or {}
    if refused.get("count"):
      reasons = (refused.get("reasons") or {}).items()
      words = ", ".join(f"{reason}: {n:,}" for reason, n in reasons)
      lines.append((arm.name, refused["count"], words))
  return lines


def _shown_arms(run: Run) -> list[Arm]:
  """Return the main arm, its control, and other arms, `MOST_ARMS` at most."""
  main = run.main
  if main is None:
    return []
  first = [main, *([run.control_of(main)] if run.control_of(main) else [])]
  others = [arm for arm in run.arms if arm not in first]
  return (first + sorted(others, key=lambda arm: arm.results is None))[:MOST_ARMS]


def _arm_line(run: Run, arm: Arm) -> dict[str, Any]:
  control = run.control_of(arm)
  comparison = paired_difference(arm.scores, control.scores) if control else None
  results = arm.results or {}
  tasks = (results.get("tasks") or {}).values()
  counts = {
    key: sum(task.get(key) or 0 for task in tasks) for key in ("count", "correct")
  }
  return {
    "arm": arm,
    "kept": None if arm.selection is None else int(arm.selection.kept.sum()),
    "macro": _PART | results["macro"] if results.get("macro") else None,
    "overall": counts if counts["count"] else None,
    "tasks": len(tasks),
    "control": control,
    "difference": comparison.macro if comparison else None,
  }


def _differences(
  comparison: PairedDifference | None,
) -> dict[str, Difference]:
  if comparison is None:
    return {}
  return comparison.tasks | {ALL_TASKS: comparison.macro}


def _chosen(run: Run) -> Selection | None:
  return run.main.selection if run.main else None


def _picks(run: Run) -> list[picks.Pick]:
  return picks.pick_rows(run.pool, _chosen(run))


def _chosen_content(run: Run) -> dict[str, Any] | None:
  selection = _chosen(run)
  if selection is None:
    return None
  return {
    "kept": int(selection.kept.sum()),
    "certificate": _certificate(selection.summary),
    "bound": _bound(run, selection.summary),
    "warnings": [str(text) for text in selection.summary.get("warnings") or []],
    "groups": findings.group_lines(run.pool, selection),
    "reasons": findings.reason_lines(selection),
    "suspects": int(findings.is_suspect(selection).sum()),
    "doubtful": int(findings.is_doubtful(selection).sum()),
    "threshold": findings.threshold_of(selection),
  }


def _measured(run: Run) -> dict[str, Any] | None:
  if run.measures is None:
    return None
  if not run.measures["sets"]:
    return {"why": run.measures["why"]}
  notes = format_notes(run.measures)
  return {"why": "", "notes": notes, "lines": run.measures["sets"]}


def _bound(run: Run, summary: dict[str, Any]) -> dict[str, Any] | None:
  """Return what a bound left out, what it did not judge, and its cost."""
  name, summary_bound = (
    (summary.get("options") or {}).get("bound"),
    summary.get("bound"),
  )
  if not summary_bound or not (summary_bound.get("flops") or summary_bound["spared"]):
    return None
  bound = BOUNDS.get(name)  # the held-out loss of a plug-in's bound is not known
  seconds = add_seconds(run.times, bound.held_out) if bound else None
  return {**summary_bound, "name": name, "seconds": seconds}


def _certificate(summary: dict[str, Any]) -> dict[str, Any] | None:
  certificate = summary.get("certificate")
  return dict.fromkeys(("value", "bound", "gap")) | certificate if certificate else None


def _other_content(run: Run, arm: Arm) -> dict[str, Any]:
  if arm.selection is None:
    return {"arm": arm, "reasons": [], "sources": []}
  return {
    "arm": arm,
    "reasons": findings.reason_lines(arm.selection),
    "sources": findings.source_lines(run.pool, arm.selection)[:MOST_LINES],
  }


def _aside_content(run: Run) -> list[dict[str, Any]]:
  lines = findings.aside_lines(run.pool)
  rows = np.array([line["example"] for line in lines], np.int64)
  records = samples.tables.read_rows(run.pool.path, rows, ("id", "detail", "images"))
  for line in lines:
    line["record"] = records[line["example"]]
  return lines


def _charts(run: Run, comparison: PairedDifference | None) -> dict[str, str]:
  """Return the charts as data URIs by name; empty charts are left out."""
  charts, selection = {}, _chosen(run)
  arms, results = _shown_arms(run), result_lines(_shown_arms(run))
  if results:
    plotted = dict(list(results.items())[-MOST_LINES:])
    lines = [
      (
        _label(arm),
        {
          task: by_arm[arm.name]
          for task, by_arm in plotted.items()
          if arm.name in by_arm
        },
      )
      for arm in arms
      if arm.results is not None
    ]
    differences = {
      name: (part.value, part.low, part.high)
      for name, part in _differences(comparison).items()
    }
    title = f"{arms[0].name} minus {arms[1].name}" if comparison else ""
    charts["results"] = plots.plot_results(lines, differences, title)
  sources = findings.source_lines(run.pool, selection)
  if sources:
    charts["sources"] = plots.plot_sources(sources)
  lengths = findings.lengths(run.pool)
  if any(map(len, lengths.values())):
    charts["lengths"] = plots.plot_lengths(lengths)
  if selection is not None:
    charts |= _selection_charts(run, selection)
  curves = [(_label(arm), arm.curve) for arm in arms if arm.curve]
  if run.seed_curve:
    curves.append(("seed model", run.seed_curve))
  if curves:
    charts["curves"] = plots.plot_curves(curves)
  return charts


def _selection_charts(run: Run, selection: Selection) -> dict[str, str]:
  charts, kept = {}, selection.kept
  suspect = findings.is_suspect(selection)
  parts = [
    ("kept", plots.KEPT, kept),
    ("not taken", plots.DROPPED, ~kept & ~suspect),
    ("suspect, left out", plots.SUSPECT, suspect),
  ]

  def split(values: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    finite = np.isfinite(values)
    return [(name, colour, values[where & finite]) for name, colour, where in parts]

  groups = findings.group_lines(run.pool, selection)
  if groups:
    charts["groups"] = plots.plot_groups(groups)
  if np.isfinite(selection.necessity).any():
    signal = str(selection.summary.get("signal") or "loss")[:30]
    charts["necessity"] = plots.plot_parts(
      split(selection.necessity),
      f"necessity, from the signal “{signal}”",
      bounds=findings.upper_bounds(selection),
    )
  if run.loss is not None and np.isfinite(run.loss).any():
    finite = np.isfinite(run.loss)
    charts["loss"] = plots.plot_shapes(
      [
        ("pool", plots.POOL, run.loss[finite]),
        ("kept", plots.KEPT, run.loss[finite & kept]),
        ("suspect, left out", plots.SUSPECT, run.loss[finite & suspect]),
      ],
      "the seed model's loss (nats per token)",
    )
  if np.isfinite(selection.gain).any():
    threshold = findings.threshold_of(selection)
    line = None if threshold is None else (threshold, f"threshold {threshold:.4g}")
    charts["gain"] = plots.plot_parts(split(selection.gain)[:2], "gain", line)
  return charts


def _label(arm: Arm) -> str:
  return arm.name if arm.strategy == arm.name else f"{arm.name} ({arm.strategy})"


@functools.cache
def _environment() -> jinja2.Environment:
  environment = make_environment()
  environment.filters |= {
    "count": _count,
    "percent": lambda value: DASH if _missing(value) else f"{100 * value:.1f}\u00a0%",
    "decimal": lambda value: DASH if _missing(value) else f"{value:.3f}",
    "gap": lambda value: DASH if _missing(value) else f"{value:.2g}",
    "fine": lambda value: DASH if _missing(value) else f"{value:.4f}",
    "points": lambda value: DASH if _missing(value) else f"{100 * value:+.1f}",
    "short": lambda value, length=60: samples.cut(str(value), length),
  }
  return environment


def _count(value: float | None) -> str:
  if value is None:
    return DASH
  return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def _missing(value: Any) -> bool:
  return not isinstance(value, int | float) or not math.isfinite(value)
