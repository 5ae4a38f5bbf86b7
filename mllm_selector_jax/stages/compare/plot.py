"""The picture: accuracy against budget, and the difference from random."""

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from mllm_selector_jax.stages.compare.arms import FULL, RANDOM
from mllm_selector_jax.stages.compare.summary import MACRO
from mllm_selector_jax.stages.report import plots

LINES = ("-", "--", ":")


def draw(results: dict[str, Any]) -> bytes:
  """A PNG of the mean over tasks; the same results give the same bytes.

  Left, a line a strategy with its 95 % interval over seeds, and the full pool as
  a band; right, the differences from random, paired by seed, which vary less.
  """
  table = [entry for entry in results["table"] if entry["part"] == MACRO]
  full = next(entry for entry in table if entry["strategy"] == FULL)
  strategies = [name for name in results["plan"]["strategies"] if name != FULL]
  with matplotlib.rc_context():
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(plots.STYLE)
    figure = Figure(figsize=(11.0, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_full(left, full)
    right.axhline(0, color=plots.POOL, linestyle="--", label=RANDOM)
    for place, name in enumerate(strategies):
      entries = [entry for entry in table if entry["strategy"] == name]
      entries.sort(key=lambda entry: entry["rows"])
      offset = 1 + 0.03 * (place - (len(strategies) - 1) / 2)
      x = np.array([entry["rows"] for entry in entries]) / full["rows"] * offset
      style = _style(place, name)
      _draw_line(left, x, [entry["mean"] for entry in entries], style)
      if name != RANDOM:
        _draw_line(right, x, [entry["minus_random"] for entry in entries], style)
    _label(left, table, full, f"accuracy, {_seeds(results)}")
    right.set_ylabel("accuracy minus random, percentage points")
    right.yaxis.set_major_formatter(
      FuncFormatter(lambda y, _: f"{100 * y:+.3g}" if y else "0")
    )
    _label(right, table, full, "")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
  return buffer.getvalue()


def _seeds(results: dict[str, Any]) -> str:
  count = len(results["plan"]["seeds"])
  return "one seed" if count == 1 else f"mean and 95 % interval of {count} seeds"


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


def _draw_full(axes: Axes, full: dict[str, Any]) -> None:
  mean = full["mean"]
  axes.axhline(mean["value"], color=plots.POOL, linewidth=1.5, label="full pool")
  if mean["low"] is not None:
    axes.axhspan(
      mean["low"], mean["high"], color=plots.POOL, alpha=0.2, linewidth=0, zorder=0
    )


def _draw_line(axes: Axes, x: np.ndarray, parts: list[dict], style: dict) -> None:
  value = np.array([part["value"] for part in parts])
  low, high = (
    np.array([part["value" if part[name] is None else name] for part in parts])
    for name in ("low", "high")
  )
  reach = np.maximum(np.stack([value - low, high - value]), 0)
  axes.errorbar(x, value, yerr=reach, markersize=5, capsize=2.5, **style)


def _label(axes: Axes, table: list[dict], full: dict, title: str) -> None:
  ticks = {
    entry["rows"] / full["rows"]: entry["budget"]
    for entry in table
    if entry["strategy"] in (RANDOM, FULL)
  }
  axes.set_xscale("log")
  axes.set_xticks(list(ticks), list(ticks.values()))
  axes.xaxis.set_minor_locator(NullLocator())
  axes.set_xlabel("budget")
  if title:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g} %"))
    axes.set_ylabel(title)
