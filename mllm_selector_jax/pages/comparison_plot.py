"""Plots a comparison: accuracy against budget, and the difference from random.

With a single budget, the strategies are ranked instead.
"""

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from mllm_selector_jax.comparison.comparison_plan import FULL, RANDOM, REFERENCE
from mllm_selector_jax.comparison.comparison_summary import MACRO
from mllm_selector_jax.pages import plots

LINES = ("-", "--", ":")
# Arms that are a band, since they are the same at every budget: colour and label.
BANDS = {FULL: (plots.POOL, "full pool"), REFERENCE: (plots.ARMS[4], "reference")}
DIFFERENCE = "accuracy minus random, percentage points"
REACH = 1.5  # spans of the means that an axis reaches beyond them, at most
LEAST_SPAN = 0.02  # which counts as the span of means that are closer together
SHARE = FuncFormatter(lambda y, _: f"{100 * y:.3g} %")
POINTS = FuncFormatter(lambda y, _: f"{100 * y:+.3g}" if y else "0")


def draw(results: dict[str, Any]) -> bytes:
  """Draw the mean over tasks as PNG; the same results give the same bytes.

  The left half has a line for each strategy, with its 95 % interval over seeds, and the
  full pool and the reference as bands if they are arms. The right half has the
  differences from random, which vary less since they are paired by seed. With a single
  budget, each strategy has a row instead, the best at the top.
  """
  table = [entry for entry in results["table"] if entry["part"] == MACRO]
  bands = [entry for entry in table if entry["strategy"] in BANDS]
  strategies = [name for name in results["plan"]["strategies"] if name not in BANDS]
  with matplotlib.rc_context():
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(plots.STYLE)
    one_budget = len(results["plan"]["budgets"]) == 1
    height = max(2.4, 1.4 + 0.28 * len(strategies)) if one_budget else 4.6
    figure = Figure(figsize=(11.0, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left_axes, right_axes = figure.subplots(1, 2, sharey=one_budget)
    plotted = [entry for entry in table if entry["strategy"] in strategies]
    if one_budget:
      _draw_ranks(left_axes, right_axes, bands, plotted)
      bound_axis(left_axes, [entry["mean"] for entry in table], upright=True)
      bound_axis(right_axes, _differences(plotted), upright=True)
      left_axes.set_xlabel(f"accuracy at {plotted[0]['budget']}, {_seeds(table)}")
    else:
      _draw_curves(left_axes, right_axes, bands, plotted, strategies)
      bound_axis(left_axes, [entry["mean"] for entry in table])
      bound_axis(right_axes, _differences(plotted))
      _label(left_axes, table, f"accuracy, {_seeds(table)}")
      _label(right_axes, table, "")
    handles, labels = left_axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
  return buffer.getvalue()


def _draw_curves(left_axes, right_axes, bands, table, strategies) -> None:
  _draw_bands(left_axes, bands)
  right_axes.axhline(0, color=plots.POOL, linestyle="--", label=RANDOM)
  for index, name in enumerate(strategies):
    entries = [entry for entry in table if entry["strategy"] == name]
    entries.sort(key=lambda entry: entry["rows"])
    offset = 1 + 0.03 * (index - (len(strategies) - 1) / 2)
    x = np.array([entry["rows"] for entry in entries]) * offset
    style = _style(index, name)
    _draw_line(left_axes, x, [entry["mean"] for entry in entries], style)
    if name != RANDOM:
      _draw_line(right_axes, x, [entry["minus_random"] for entry in entries], style)
  right_axes.set_ylabel(DIFFERENCE)
  right_axes.yaxis.set_major_formatter(POINTS)


def _draw_ranks(left_axes, right_axes, bands, table) -> None:
  table = sorted(table, key=lambda entry: entry["mean"]["value"])
  _draw_bands(left_axes, bands, upright=True)
  right_axes.axvline(0, color=plots.POOL, linestyle="--")
  for rank, entry in enumerate(table):
    control = entry["strategy"] == RANDOM
    style = {"color": plots.LINE if control else plots.KEPT, "marker": "o"}
    _draw_line(left_axes, np.array([rank]), [entry["mean"]], style, upright=True)
    if not control:
      difference = [entry["minus_random"]]
      _draw_line(right_axes, np.array([rank]), difference, style, upright=True)
  left_axes.set_yticks(range(len(table)), [entry["strategy"] for entry in table])
  left_axes.xaxis.set_major_formatter(SHARE)
  right_axes.set_xlabel(DIFFERENCE)
  right_axes.xaxis.set_major_formatter(POINTS)


def _seeds(table: list[dict]) -> str:
  counts = sorted({entry["seeds"] for entry in table})
  if counts == [1]:
    return "one seed"
  span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
  return f"mean and 95 % interval of {span} seeds"


def find_limits(parts: list[dict[str, Any]]) -> tuple[float, float]:
  """Find the limits of an axis that shows means with their intervals.

  The axis holds all intervals, but on each side at most 1.5 times the span of the
  means beyond the outermost mean, since those of two seeds are very wide.
  """
  values = [part["value"] for part in parts]
  ends = [
    part["value" if part[name] is None else name]
    for part in parts
    for name in ("low", "high")
  ]
  reach = REACH * max(max(values) - min(values), LEAST_SPAN)
  low = max(min(ends), min(values) - reach)
  high = min(max(ends), max(values) + reach)
  margin = 0.06 * max(high - low, LEAST_SPAN)
  return low - margin, high + margin


def _differences(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
  parts = [entry["minus_random"] for entry in table if entry["minus_random"]]
  return [*parts, {"value": 0.0, "low": None, "high": None}]


def bound_axis(axes: Axes, parts: list[dict[str, Any]], upright: bool = False) -> None:
  """Limit the axis of the values by `find_limits`, and mark intervals that are cut.

  Args:
    axes: The axes, with error bars only.
    parts: Value, low and high of all that shares this axis.
    upright: Whether the values lie on the horizontal axis.
  """
  limits = find_limits(parts)
  (axes.set_xlim if upright else axes.set_ylim)(*limits)
  _mark_cut(axes, upright)


def _style(index: int, name: str) -> dict[str, Any]:
  if name == RANDOM:
    return {"color": plots.LINE, "marker": "o", "linestyle": "--", "label": name}
  colours = len(plots.ARMS)
  return {
    "color": plots.ARMS[index % colours],
    "marker": plots.MARKERS[index % len(plots.MARKERS)],
    "linestyle": LINES[index // colours % len(LINES)],
    "label": name,
  }


def _draw_bands(axes: Axes, bands: list[dict[str, Any]], upright: bool = False) -> None:
  line, span = axes.axhline, axes.axhspan
  if upright:
    line, span = axes.axvline, axes.axvspan
  for entry in bands:
    mean, (colour, label) = entry["mean"], BANDS[entry["strategy"]]
    line(mean["value"], color=colour, linewidth=1.5, label=label)
    if mean["low"] is not None:
      span(mean["low"], mean["high"], color=colour, alpha=0.2, linewidth=0, zorder=0)


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


def _mark_cut(axes: Axes, upright: bool) -> None:
  """Draw a triangle where an interval goes beyond the limits of the axis."""
  limits = axes.get_xlim() if upright else axes.get_ylim()
  for container in axes.containers:
    line, _, (bars,) = container.lines
    for segment in bars.get_segments():
      for place, marker in zip((0, 1), "<>" if upright else "v^", strict=True):
        end = segment[place][0 if upright else 1]
        if limits[0] <= end <= limits[1]:
          continue
        point = (
          [limits[place], segment[0][1]] if upright else [segment[0][0], limits[place]]
        )
        axes.plot(*point, marker, color=line.get_color(), markersize=6, clip_on=False)


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
