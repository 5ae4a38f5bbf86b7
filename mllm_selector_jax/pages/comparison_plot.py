"""The picture: accuracy against budget, and the difference from random.

With one budget there is nothing to draw a line through: strategies are ranked.
"""

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from mllm_selector_jax.comparison.comparison_plan import FULL, RANDOM
from mllm_selector_jax.comparison.comparison_summary import MACRO
from mllm_selector_jax.pages import plots

LINES = ("-", "--", ":")
DIFFERENCE = "accuracy minus random, percentage points"
SHARE = FuncFormatter(lambda y, _: f"{100 * y:.3g} %")
POINTS = FuncFormatter(lambda y, _: f"{100 * y:+.3g}" if y else "0")


def draw(results: dict[str, Any]) -> bytes:
  """A PNG of the mean over tasks; the same results give the same bytes.

  Left, a line a strategy with its 95 % interval over seeds, and the full pool, if it
  is an arm, as a band; right, the differences from random, paired by seed, which vary
  less. With one budget each strategy has a row instead, the best on top.
  """
  table = [entry for entry in results["table"] if entry["part"] == MACRO]
  full = next((entry for entry in table if entry["strategy"] == FULL), None)
  strategies = [name for name in results["plan"]["strategies"] if name != FULL]
  with matplotlib.rc_context():
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(plots.STYLE)
    alone = len(results["plan"]["budgets"]) == 1
    height = max(2.4, 1.4 + 0.28 * len(strategies)) if alone else 4.6
    figure = Figure(figsize=(11.0, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=alone)
    own = [entry for entry in table if entry["strategy"] in strategies]
    if alone:
      _draw_ranks(left, right, full, own)
      left.set_xlabel(f"accuracy at {own[0]['budget']}, {_seeds(table)}")
    else:
      _draw_curves(left, right, full, own, strategies)
      _label(left, table, f"accuracy, {_seeds(table)}")
      _label(right, table, "")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
  return buffer.getvalue()


def _draw_curves(left, right, full, table, strategies) -> None:
  _draw_full(left, full)
  right.axhline(0, color=plots.POOL, linestyle="--", label=RANDOM)
  for place, name in enumerate(strategies):
    entries = [entry for entry in table if entry["strategy"] == name]
    entries.sort(key=lambda entry: entry["rows"])
    offset = 1 + 0.03 * (place - (len(strategies) - 1) / 2)
    x = np.array([entry["rows"] for entry in entries]) * offset
    style = _style(place, name)
    _draw_line(left, x, [entry["mean"] for entry in entries], style)
    if name != RANDOM:
      _draw_line(right, x, [entry["minus_random"] for entry in entries], style)
  right.set_ylabel(DIFFERENCE)
  right.yaxis.set_major_formatter(POINTS)


def _draw_ranks(left, right, full, table) -> None:
  table = sorted(table, key=lambda entry: entry["mean"]["value"])
  _draw_full(left, full, upright=True)
  right.axvline(0, color=plots.POOL, linestyle="--")
  for place, entry in enumerate(table):
    control = entry["strategy"] == RANDOM
    style = {"color": plots.LINE if control else plots.KEPT, "marker": "o"}
    _draw_line(left, np.array([place]), [entry["mean"]], style, upright=True)
    if not control:
      found = [entry["minus_random"]]
      _draw_line(right, np.array([place]), found, style, upright=True)
  left.set_yticks(range(len(table)), [entry["strategy"] for entry in table])
  left.xaxis.set_major_formatter(SHARE)
  right.set_xlabel(DIFFERENCE)
  right.xaxis.set_major_formatter(POINTS)


def _seeds(table: list[dict]) -> str:
  counts = sorted({entry["seeds"] for entry in table})
  if counts == [1]:
    return "one seed"
  span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
  return f"mean and 95 % interval of {span} seeds"


def _style(place: int, name: str) -> dict[str, Any]:
  if name == RANDOM:
    return {"color": plots.LINE, "marker": "o", "linestyle": "--", "label": name}
  colours = len(plots.ARMS)
  return {
    "color": plots.ARMS[place % colours],
    "marker": plots.MARKERS[place % len(plots.MARKERS)],
    "linestyle": LINES[place // colours % len(LINES)],
    "label": name,
  }


def _draw_full(axes: Axes, full: dict[str, Any] | None, upright: bool = False) -> None:
  if full is None:
    return
  mean, line, span = full["mean"], axes.axhline, axes.axhspan
  if upright:
    line, span = axes.axvline, axes.axvspan
  line(mean["value"], color=plots.POOL, linewidth=1.5, label="full pool")
  if mean["low"] is not None:
    span(mean["low"], mean["high"], color=plots.POOL, alpha=0.2, linewidth=0, zorder=0)


def _draw_line(
  axes: Axes, x: np.ndarray, parts: list[dict], style: dict, upright: bool = False
) -> None:
  value = np.array([part["value"] for part in parts])
  low, high = (
    np.array([part["value" if part[name] is None else name] for part in parts])
    for name in ("low", "high")
  )
  reach = np.maximum(np.stack([value - low, high - value]), 0)
  where = {"x": x, "y": value, "yerr": reach}
  if upright:
    where = {"x": value, "y": x, "xerr": reach}
  axes.errorbar(**where, markersize=5, capsize=2.5, **style)


def _label(axes: Axes, table: list[dict], title: str) -> None:
  mixed = len({entry["seeds"] for entry in table}) > 1  # merged comparisons
  ticks = {
    entry["rows"]: entry["budget"] + (f"\n{entry['seeds']} seeds" if mixed else "")
    for entry in table
    if entry["strategy"] in (RANDOM, FULL)
  }
  axes.set_xscale("log")
  axes.set_xticks(list(ticks), list(ticks.values()))
  axes.xaxis.set_minor_locator(NullLocator())
  axes.set_xlabel("budget")
  if title:
    axes.yaxis.set_major_formatter(SHARE)
    axes.set_ylabel(title)
