"""The figures of an accelerator as tables in Markdown: the command `report`."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator_kernels import DTYPES
from benchmarks.accelerator_ledger import read_figures

Figures = dict[str, dict[str, Any]]
KERNELS = ("cudnn", "splash", "xla", "blocks")


def format_report(path: Path) -> str:
  """All tables for which the file has figures, and what is not done."""
  found = read_figures(path)
  parts = [_format_machines(found)]
  for command, write in WRITERS.items():
    own = {
      key: figures
      for key, figures in found.items()
      if key.startswith(f"{command}/") and figures.get("state") == "done"
    }
    if own:
      parts.append(f"## {command.capitalize()}\n\n{write(own)}")
  left = [
    f"- `{key}`: {figures.get('state')} after {figures.get('seconds')} s."
    + (f" {figures['error']}" if figures.get("error") else "")
    for key, figures in found.items()
    if figures.get("state") != "done"
  ]
  if left:
    parts.append("## Not measured\n\n" + "\n".join(left))
  return "\n\n".join(parts)


def format_table(head: list[str], lines: list[list[Any]]) -> str:
  rows = [head, ["---"] * len(head), *lines]
  return "\n".join("| " + " | ".join(map(_format, row)) + " |" for row in rows)


def _format(value: Any) -> str:
  if value is None:
    return ""
  if not isinstance(value, float):
    return str(value).replace("|", "/")
  if value and abs(value) < 1e-2:
    return f"{value:.1e}"
  return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _format_machines(found: Figures) -> str:
  machines = [figures["machine"] for figures in found.values() if "machine" in figures]
  texts = {
    ", ".join(f"{name} {value}" for name, value in machine.items())
    for machine in machines
  }
  return "Measured on: " + "; ".join(sorted(texts)) + "."


def format_kernels(found: Figures) -> str:
  """Times and errors of each kernel in each layout."""
  parts = []
  if machine := found.get("kernels/machine"):
    names = [name for name in machine if "/s" in name]
    parts.append(format_table(names, [[machine[name] for name in names]]))
  what = ["forward ms", "forward TFLOP/s", "forward MB"]
  what += ["both ms", "both TFLOP/s", "both MB"]
  what += [f"{place} apart" for place in ("forward", "query", "key", "value")]
  lines = []
  for key, figures in found.items():
    layout, shape = key.split("/")[1], " x ".join(map(str, figures.get("shape", ())))
    for dtype, kernel in itertools.product(DTYPES, KERNELS) if shape else ():
      own = [figures.get(f"{dtype} {kernel} {name}") for name in what]
      if error := figures.get(f"{dtype} {kernel} error"):
        own = [f"refused: {error}", *[None] * (len(what) - 1)]
      if any(value is not None for value in own):
        lines.append([layout, shape, dtype, kernel, *own])
  head = ["layout", "rows, length, heads, of keys, width", "type", "kernel", *what]
  parts.append(format_table(head, lines))
  if model := found.get("kernels/model"):
    models = [
      [dtype, *(model[f"{dtype} {name}"] for name in ("asked", "chosen", "said"))]
      for dtype in DTYPES
    ]
    parts.append(format_table(["model", "kernel asked", "chosen", "said"], models))
  return "\n\n".join(parts)


def _group(found: Figures, count: int) -> dict[str, Figures]:
  """Cases by the first parts of their names, without the command's."""
  groups: dict[str, Figures] = {}
  for key, figures in found.items():
    parts = key.split("/")[1:]
    groups.setdefault(" ".join(parts[:count]), {})["/".join(parts[count:])] = figures
  return groups


def _share(figures: dict[str, Any], name: str, of: str) -> str | None:
  if not figures.get(of) or figures.get(name) is None:
    return None
  return f"{figures[name] / figures[of]:.1%}"


def format_scoring(found: Figures) -> str:
  """Speeds of each method, and how far its losses are from torch's."""
  head = ["method", "samples/s", "range", "tokens/s", "x best torch", "executed tokens"]
  head += ["model TFLOP/s", "MFU", "of a matmul", "executed TFLOP/s", "first run +s"]
  head += ["peak GB", "setting", "losses apart: most", "p99", "Spearman", "top 20 %"]
  parts = []
  for size, methods in _group(found, 1).items():
    rivals = [one["samples/s"] for name, one in methods.items() if name[0] == "B"]
    wanted = next((methods[n]["losses"] for n in ("B1", "B0") if n in methods), None)
    lines = []
    for name, one in methods.items():
      low, high = (one[f"{word} samples/s"] for word in ("slowest", "fastest"))
      lines.append(
        [
          name,
          one["samples/s"],
          f"{_format(low)} to {_format(high)}",
          one["tokens/s"],
          one["samples/s"] / max(rivals) if rivals else None,
          one["executed tokens"],
          one["model TFLOP/s"],
          _share(one, "model TFLOP/s", "published TFLOP/s"),
          _share(one, "model TFLOP/s", "matmul TFLOP/s"),
          one["executed TFLOP/s"],
          one["first run +s"],
          one["peak GB"],
          one["setting"],
          *_compare(one["losses"], wanted),
        ]
      )
    about = next(iter(methods.values()))
    parts.append(
      f"### {size}: {about['rows']:,} rows, {about['tokens']:,} tokens,"
      f" {about['images']:,} images\n\n{format_table(head, lines)}"
    )
  return "\n\n".join(parts)


def _compare(losses: list[float], wanted: list[float] | None) -> list[Any]:
  """The largest relative distance, its 99th percentile, how alike the orders are."""
  from benchmarks.scoring_report import overlap, spearman

  if wanted is None or losses is wanted:
    return [None] * 4
  own, theirs = np.array(losses), np.array(wanted)
  apart = np.abs(own / theirs - 1)
  most, p99 = float(apart.max()), float(np.quantile(apart, 0.99))
  return [most, p99, f"{spearman(own, theirs):.6f}", f"{overlap(own, theirs):.4f}"]


def format_training(found: Figures) -> str:
  """Speeds of each side, for each size and way."""
  names = ["s a step", "samples/s", "tokens/s", "model TFLOP a step"]
  names += ["executed TFLOP a step", "model TFLOP/s", "executed TFLOP/s", "peak GB"]
  names += ["kernel", "setting"]
  head = ["size, way", "side", *names, "MFU", "of a matmul", "first and last loss"]
  lines = []
  for title, sides in _group(found, 2).items():
    for side, one in sides.items():
      rates = [
        _share(one, "model TFLOP/s", of)
        for of in ("published TFLOP/s", "matmul TFLOP/s")
      ]
      ends = f"{one['losses'][0]:.4f} -> {one['losses'][-1]:.4f}"
      lines.append([title, side, *(one.get(name) for name in names), *rates, ends])
  return format_table(head, lines)


def format_headline(found: Figures) -> str:
  """The comparison over all seeds that are done."""
  from benchmarks.merge_comparisons import merge_by_budget
  from mllm_selector_jax.pages import comparison_page

  seeds = [
    {"arms": [value for value in figures.values() if _is_arm(value)]}
    for figures in found.values()
  ]
  results, _ = merge_by_budget(seeds, None, None)
  return comparison_page.format_markdown(results, {"table": []})


def _is_arm(value: Any) -> bool:
  return isinstance(value, dict) and "strategy" in value


WRITERS: dict[str, Callable[[Figures], str]] = {
  "kernels": format_kernels,
  "scoring": format_scoring,
  "training": format_training,
  "headline": format_headline,
}
