"""Plots a comparison by task: the difference from random of each arm."""

import io
import math
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mllm_selector_jax.comparison.comparison_summary import is_sure
from mllm_selector_jax.pages import plots
from mllm_selector_jax.pages.comparison_plot import DIFFERENCE, POINTS, bound_axis

COLUMNS = 4
MOST_TASKS = 24
MOST_ARMS = 24


def draw_tasks(results: dict[str, Any]) -> bytes:
  """Draw a panel for each task, with a line for each arm, as PNG.

  Returns:
    The picture; the same results give the same bytes. Empty if no task has a
    difference from random.
  """
  entries = [
    entry
    for entry in results["table"]
    if entry["part"] == "task" and entry["minus_random"]
  ]
  tasks = list(dict.fromkeys(entry["task"] for entry in entries))[:MOST_TASKS]
  arms = list(dict.fromkeys((e["strategy"], e["budget"]) for e in entries))[:MOST_ARMS]
  if not tasks:
    return b""
  columns = min(COLUMNS, len(tasks))
  lines = math.ceil(len(tasks) / columns)
  with matplotlib.rc_context():
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(plots.STYLE)
    height = 0.7 + lines * (0.6 + 0.24 * len(arms))
    figure = Figure(figsize=(11.0, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, sharey=True, sharex=True, squeeze=False)
    for panel, task in zip(panels.flat, tasks, strict=False):
      tests = {
        (entry["strategy"], entry["budget"]): entry["minus_random"]
        for entry in entries
        if entry["task"] == task
      }
      _draw_panel(panel, task, arms, tests)
    for place, panel in enumerate(panels.flat):
      if place >= len(tasks):
        panel.set_axis_off()
      panel.tick_params(labelbottom=place + columns >= len(tasks))
    shown = [entry["minus_random"] for entry in entries if entry["task"] in tasks]
    for panel in panels.flat[: len(tasks)]:
      bound_axis(panel, shown, upright=True)
    figure.supxlabel(DIFFERENCE, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
  return buffer.getvalue()


def _draw_panel(
  axes: Axes,
  task: str,
  arms: list[tuple[str, str]],
  tests: dict[tuple[str, str], dict[str, Any]],
) -> None:
  axes.set_title(plots.shorten(task, 28))
  axes.axvline(0, color=plots.POOL, linestyle="--")
  for place, arm in enumerate(arms):
    test = tests[arm]
    value, low, high = (
      test["value" if test[name] is None else name] for name in ("value", "low", "high")
    )
    axes.errorbar(
      value,
      place,
      xerr=[[max(value - low, 0)], [max(high - value, 0)]],
      fmt="o",
      color=plots.KEPT,
      markerfacecolor=plots.KEPT if is_sure(test) else "white",
      markersize=5,
      capsize=2.5,
    )
  labels = [plots.shorten(" ".join(arm), 24) for arm in arms]
  axes.set_yticks(range(len(arms)), labels)
  axes.set_ylim(len(arms) - 0.4, -0.6)
  axes.xaxis.set_major_formatter(POINTS)
