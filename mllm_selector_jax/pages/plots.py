"""Draws the page's charts as SVG in data URIs; the same data give the same bytes.

The colours are those of Okabe and Ito, which people of any colour vision can tell
apart. Series in one chart also differ in shape or lightness.
"""

import base64
import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

POOL, KEPT, SUSPECT, DROPPED = "#8f9aa6", "#0072b2", "#cc79a7", "#d3d9df"
LINE = "#1f2933"
ARMS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
BINS = 40
MOST_POINTS = 200  # of a curve
MOST_BARS = 14
MOST_GROUPS = 60
STYLE = {
  "axes.axisbelow": True,
  "axes.edgecolor": "#9aa5b1",
  "axes.grid": True,
  "axes.labelcolor": LINE,
  "axes.spines.right": False,
  "axes.spines.top": False,
  "axes.titlesize": 10,
  "font.family": "DejaVu Sans",  # shipped with matplotlib: the same everywhere
  "font.size": 9,
  "grid.color": "#e4e7eb",
  "legend.fontsize": 8.5,
  "legend.frameon": False,
  "svg.fonttype": "path",
  "svg.hashsalt": "mllm-selector",
  "text.parse_math": False,  # names of sources are taken literally
  "xtick.color": "#52606d",
  "ytick.color": "#52606d",
}


class Drawing:
  """A chart that is being drawn; `uri` is set at the end of the block of `drawn`."""

  def __init__(self, figure: Figure, axes: Any):
    self.figure, self.axes, self.uri = figure, axes, ""


@contextlib.contextmanager
def drawn(
  width: float = 6.2, height: float = 3.4, columns: int = 1, **options: Any
) -> Iterator[Drawing]:
  """Yield a chart to draw on; width and height are in inches."""
  with matplotlib.rc_context():
    matplotlib.rcdefaults()  # ignore the user's matplotlibrc
    matplotlib.rcParams.update(STYLE)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    drawing = Drawing(figure, figure.subplots(1, columns, **options))
    yield drawing
    text = io.StringIO()
    with warnings.catch_warnings():
      # Characters that the font lacks are drawn as boxes; the tables beside the chart
      # have the names in full.
      warnings.filterwarnings("ignore", message="Glyph .* missing from")
      warnings.filterwarnings("ignore", message="constrained_layout not applied")
      figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    encoded = base64.b64encode(text.getvalue().encode()).decode()
    drawing.uri = f"data:image/svg+xml;base64,{encoded}"


def plot_results(
  arms: list[tuple[str, dict[str, dict[str, float]]]],
  differences: dict[str, tuple[float, float, float]],
  title: str,
) -> str:
  """Plot the results of each arm with intervals, and beside them the differences.

  Args:
    arms: Name of each arm and, by line of the table, `value`, `low` and `high`.
    differences: By line of the table, the difference and its interval.
    title: Title of the right half, which shows the differences.
  """
  names = list(dict.fromkeys(name for _, lines in arms for name in lines))
  columns = 2 if differences else 1
  height = 1.3 + (0.17 * len(arms) + 0.15) * len(names)
  with drawn(5.2 * columns, height, columns, sharey=True) as drawing:
    left_axes = drawing.axes[0] if columns == 2 else drawing.axes
    offsets = np.linspace(-0.24, 0.24, len(arms)) if len(arms) > 1 else [0.0]
    for index, ((label, lines), offset) in enumerate(zip(arms, offsets, strict=True)):
      positions = [y for y, name in enumerate(names) if name in lines]
      rows = [lines[names[y]] for y in positions]
      _dots(
        left_axes,
        np.array([(row["value"], row["low"], row["high"]) for row in rows]),
        np.array(positions) + offset,
        {
          "color": ARMS[index % len(ARMS)],
          "marker": MARKERS[index % len(MARKERS)],
          "label": shorten(label, 30),
        },
      )
    left_axes.set_yticks(range(len(names)), [shorten(name) for name in names])
    left_axes.set_ylim(len(names) - 0.4, -0.6)
    left_axes.set_xlim(-0.02, 1.02)
    left_axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    left_axes.set_xlabel("questions answered correctly (95 % interval)")
    _legend(drawing, min(len(arms), 3))
    if columns == 2:
      right_axes, positions = drawing.axes[1], [n for n in names if n in differences]
      right_axes.axvline(0, color=LINE, linewidth=1)
      values = np.array([differences[name] for name in positions])
      style = {"color": LINE, "marker": "o"}
      _dots(
        right_axes, values, np.array([names.index(name) for name in positions]), style
      )
      right_axes.xaxis.set_major_formatter(FuncFormatter(_points))
      right_axes.set_xlabel(f"{shorten(title, 50)}, percentage points (95 %)")
      right_axes.tick_params(labelleft=False, left=False)
  return drawing.uri


def plot_sources(lines: list[dict[str, Any]]) -> str:
  """Plot the share of each source in the pool and in the selection, if any."""
  largest = lines[:MOST_BARS]
  rest = lines[MOST_BARS:]
  labels = [shorten(line["name"], 28) for line in largest]
  shares = {"pool": [line["pool"] for line in largest]}
  if any(line["share"] is not None for line in lines):
    shares["selection"] = [line["share"] or 0.0 for line in largest]
  if rest:
    labels.append(f"{len(rest):,} others")
    shares["pool"].append(sum(line["pool"] for line in rest))
    if "selection" in shares:
      shares["selection"].append(sum(line["share"] or 0.0 for line in rest))
  positions = np.arange(len(labels))
  with drawn(height=1.2 + 0.34 * len(labels)) as drawing:
    thick = 0.38 if "selection" in shares else 0.6
    for index, (label, values) in enumerate(shares.items()):
      offset = (index - (len(shares) - 1) / 2) * thick
      colour = KEPT if index else POOL
      drawing.axes.barh(positions + offset, values, thick, color=colour, label=label)
    drawing.axes.set_yticks(positions, labels)
    drawing.axes.invert_yaxis()
    drawing.axes.grid(axis="y", visible=False)
    drawing.axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    drawing.axes.set_xlabel("share of the rows")
    _legend(drawing, 2)
  return drawing.uri


def plot_groups(lines: list[dict[str, Any]]) -> str:
  """Plot pool share, target share and reached share of the largest groups."""
  largest = lines[:MOST_GROUPS]
  positions = np.arange(len(largest))
  with drawn(width=max(6.2, 1.4 + 0.19 * len(largest)), height=3.6) as drawing:
    axes = drawing.axes
    pool, reached = ([line[key] for line in largest] for key in ("pool", "share"))
    axes.bar(positions, pool, 0.8, color=DROPPED, label="pool")
    axes.vlines(positions, pool, reached, color=KEPT, linewidth=1)
    axes.plot(positions, reached, "o", color=KEPT, markersize=4.5, label="selection")
    aims = [(x, line["target"]) for x, line in enumerate(largest) if line["target"]]
    if aims:
      where, target = np.asarray(aims, np.float64).T
      axes.plot(where, target, "_", color=LINE, markersize=9, label="target")
    names = [shorten(line["label"], 16) for line in largest]
    upright = all(len(name) <= 2 for name in names)
    axes.set_xticks(positions, names, rotation=0 if upright else 90, fontsize=7)
    axes.set_xlim(-0.8, len(largest) - 0.2)
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_ylabel("share of the rows")
    axes.set_xlabel("group, the largest first")
    _legend(drawing, 3)
  return drawing.uri


def plot_parts(
  parts: list[tuple[str, str, Num[np.ndarray, " _"]]],
  label: str,
  threshold: tuple[float, str] | None = None,
  bounds: Float[np.ndarray, " G"] | None = None,
) -> str:
  """Plot a stacked histogram.

  Args:
    parts: Label, colour and values of each part, from the bottom up.
    label: Label of the horizontal axis.
    threshold: Position and label of a vertical line.
    bounds: Upper bound of each group; their range is shaded and their median drawn.
  """
  edges, note = _edges(np.concatenate([values for _, _, values in parts]))
  bottom = np.zeros(len(edges) - 1)
  with drawn() as drawing:
    axes = drawing.axes
    for name, colour, values in parts:
      if not len(values):
        continue
      counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
      axes.stairs(
        bottom + counts,
        edges,
        baseline=bottom,
        fill=True,
        color=colour,
        label=f"{name}: {len(values):,} rows",
      )
      bottom = bottom + counts
    if threshold is not None:
      axes.axvline(threshold[0], color=LINE, linestyle="--", label=threshold[1])
    if bounds is not None and len(bounds):
      middle, low, high = np.median(bounds), bounds.min(), bounds.max()
      text = f"groups' upper bounds: {low:.2f} to {high:.2f}, median {middle:.2f}"
      axes.axvspan(low, high, color=SUSPECT, alpha=0.15, linewidth=0, zorder=0)
      axes.axvline(middle, color=LINE, linestyle=":", label=text)
    axes.set_xlabel(label + note)
    _count_axis(axes)
    _legend(drawing, 2)
  return drawing.uri


def plot_shapes(parts: list[tuple[str, str, Num[np.ndarray, " _"]]], label: str) -> str:
  """Plot the outlines of several histograms, each normalised by its own rows."""
  parts = [part for part in parts if len(part[2])]
  edges, note = _edges(np.concatenate([values for _, _, values in parts]))
  with drawn() as drawing:
    for index, (name, colour, values) in enumerate(parts):
      counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
      drawing.axes.stairs(
        counts / counts.sum(),
        edges,
        color=colour,
        fill=index == 0,
        alpha=0.45 if index == 0 else 1.0,
        linewidth=1.8,
        label=f"{name}: {len(values):,} rows",
      )
    drawing.axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    drawing.axes.set_ylabel("share of the rows")
    drawing.axes.set_xlabel(label + note)
    _legend(drawing, 2)
  return drawing.uri


def plot_curves(curves: list[tuple[str, tuple[np.ndarray, np.ndarray]]]) -> str:
  """Plot training losses, averaged over steps to at most `MOST_POINTS` points."""
  with drawn(width=9.0) as drawing:
    for index, (name, (steps, losses)) in enumerate(curves):
      parts = max(1, min(MOST_POINTS, len(steps)))
      x = [chunk.mean() for chunk in np.array_split(steps, parts)]
      y = [chunk.mean() for chunk in np.array_split(losses, parts)]
      drawing.axes.plot(
        x,
        y,
        color=ARMS[index % len(ARMS)],
        linestyle=("-", "--", ":", "-.")[index % 4],
        marker="" if parts > 1 else "o",
        label=shorten(name, 30),
      )
    drawing.axes.set_xlabel("step")
    drawing.axes.set_ylabel("training loss (nats per token)")
    drawing.axes.set_ylim(bottom=0)
    drawing.axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(drawing, 4)
  return drawing.uri


def _dots(
  axes: Axes, intervals: Float[np.ndarray, "K 3"], positions: Any, style: dict[str, Any]
) -> None:
  value, low, high = intervals.reshape(-1, 3).T
  reach = np.maximum(np.stack([value - low, high - value]), 0)
  axes.errorbar(value, positions, xerr=reach, linestyle="none", markersize=5, **style)


def _edges(values: Num[np.ndarray, " N"]) -> tuple[np.ndarray, str]:
  """Choose bin edges; the most extreme values go into the outer bins.

  Returns:
    The edges, and a note for the axis if the outer bins hold values beyond them.
  """
  if not len(values):
    return np.linspace(0, 1, BINS + 1), ""
  low, high = float(values.min()), float(values.max())
  if low >= 0 and high <= 1:
    return np.linspace(0, 1, BINS + 1), ""
  near, far = (float(edge) for edge in np.quantile(values, [0.002, 0.998]))
  # Only cut long tails: otherwise show the whole range.
  near = near if near - low > 0.2 * (far - near) else low
  far = far if high - far > 0.2 * (far - near) else high
  if far - near < 1e-9 * max(1.0, abs(far)):
    near, far = near - 0.5, far + 0.5
  note = " (outer bins hold all values beyond)" if near > low or far < high else ""
  return np.linspace(near, far, BINS + 1), note


def plot_lengths(lengths: dict[str, Int[np.ndarray, " K"]]) -> str:
  colours = dict(zip(lengths, (KEPT, ARMS[1]), strict=False))
  parts = [(name, colours[name], values) for name, values in lengths.items()]
  return plot_parts(parts, "length of a row in tokens")


def _count_axis(axes: Axes) -> None:
  axes.set_ylabel("rows")
  axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
  axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _percent(value: float, _: Any) -> str:
  return f"{round(100 * value, 6):g} %"


def _points(value: float, _: Any) -> str:
  return f"{100 * value:+.0f}" if round(value, 6) else "0"


def _legend(drawing: Drawing, columns: int) -> None:
  handles, labels = np.atleast_1d(drawing.axes)[0].get_legend_handles_labels()
  if handles:
    drawing.figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def shorten(text: str, length: int = 24) -> str:
  """Return a text of at most `length` printable characters, for a label."""
  text = "".join(char if char.isprintable() else " " for char in text)
  return text if len(text) <= length else text[: length - 1] + "…"
