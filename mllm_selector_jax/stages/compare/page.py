"""The comparison for people: a Markdown table, and one self-contained page."""

import base64
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from mllm_selector_jax.stages.compare.summary import MACRO
from mllm_selector_jax.stages.templates import make_environment

DASH = "-"


def format_markdown(results: dict[str, Any], costs: dict[str, Any]) -> str:
  """All tables, each under its title."""
  parts = []
  for title, head, lines in list_tables(results, costs):
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    rows += ["| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines]
    parts.append(f"**{title}**\n\n" + "\n".join(rows))
  return "\n\n".join(parts) + "\n"


def render(
  results: dict[str, Any], costs: dict[str, Any], picture: bytes, title: str
) -> str:
  """HTML without scripts and without references to anything outside of it."""
  uri = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
  return (
    make_environment()
    .get_template("compare.html.j2")
    .render(
      title=title,
      plan=results["plan"],
      picture=uri,
      tables=list(list_tables(results, costs)),
      left_out=results["tasks_left_out"],
    )
  )


def list_tables(
  results: dict[str, Any], costs: dict[str, Any]
) -> Iterator[tuple[str, list[str], list[list[str]]]]:
  """Title, head and lines of every table, as text; no column is all dashes."""
  for title, head, lines in _list_whole(results, costs):
    some = [any(line[place] != DASH for line in lines) for place in range(len(head))]
    yield (
      title,
      list(itertools.compress(head, some)),
      [list(itertools.compress(line, some)) for line in lines],
    )


def _list_whole(results, costs) -> Iterator[tuple[str, list[str], list[list[str]]]]:
  table = results["table"]
  macro = [entry for entry in table if entry["part"] == MACRO]
  yield (
    "Mean of the tasks",
    [
      *("strategy", "budget", "rows", "accuracy", "of the full pool's"),
      *("minus random", "p", "p (Holm)", "minus full", "p", "p (Holm)"),
    ],
    [
      [
        *(entry["strategy"], entry["budget"], f"{entry['rows']:,.0f}"),
        *(interval(entry["mean"]), interval(entry["of_full"])),
        *_test(entry["minus_random"]),
        *_test(entry["minus_full"]),
      ]
      for entry in macro
    ],
  )
  first = f"minus {results['plan']['first']}"
  if others := [entry for entry in macro if entry["minus_first"]]:
    yield (
      f"Mean of the tasks, {first}",
      ["strategy", "budget", "accuracy", first, "p", "p (Holm)"],
      [
        [
          *(entry["strategy"], entry["budget"], interval(entry["mean"])),
          *_test(entry["minus_first"]),
        ]
        for entry in others
      ],
    )
  tasks = [entry for entry in table if entry["part"] == "task"]
  names = list(dict.fromkeys(entry["task"] for entry in tasks))
  for title, key in (
    ("By task", "mean"),
    ("By task, minus random (* p by Holm under .05)", "minus_random"),
    ("By task, minus full (* p by Holm under .05)", "minus_full"),
    (f"By task, {first} (* p by Holm under .05)", "minus_first"),
  ):
    cells = {
      (entry["strategy"], entry["budget"], entry["task"]): _task_cell(entry[key])
      for entry in tasks
    }
    lines = []
    for entry in macro:
      arm = (entry["strategy"], entry["budget"])
      line = [cells[*arm, name] for name in names]
      if set(line) != {DASH}:
        lines.append([*arm, *line])
    if names and lines:
      yield title, ["strategy", "budget", *names], lines
  if costs["table"]:
    yield (
      "Cost: means over seeds; selection is seed model, scoring, bound and strategy",
      [
        *("strategy", "budget", "selection, FLOPs", "tuning, FLOPs"),
        *("both, of tuning on the full pool", "selection, s", "tuning, s"),
        "both, of tuning on the full pool, s",
      ],
      [
        [
          *(line["strategy"], line["budget"]),
          *(_number(line[f"{name}_flops"], ".2e") for name in ("selection", "tune")),
          _number(line["of_full_flops"], ".1%"),
          *(_number(line[f"{name}_seconds"], ",.1f") for name in ("selection", "tune")),
          _number(line["of_full_seconds"], ".1%"),
        ]
        for line in costs["table"]
      ],
    )
  if results["overlap"]:
    yield (
      "Overlap of the selections: rows in both over rows in either (Jaccard)",
      ["budget", "strategy", "strategy", "overlap"],
      [
        [line["budget"], line["first"], line["second"], interval(line["jaccard"])]
        for line in results["overlap"]
      ],
    )


def interval(part: dict[str, Any] | None) -> str:
  """A mean with half of its interval."""
  if part is None:
    return DASH
  half = "" if part["low"] is None else f" ± {(part['high'] - part['low']) / 2:.3f}"
  return f"{part['value']:.3f}{half}"


def _test(part: dict[str, Any] | None) -> Sequence[str]:
  if part is None:
    return (DASH, DASH, DASH)
  return _signed(part), _p(part["p"]), _p(part["holm"])


def _signed(part: dict[str, Any]) -> str:
  value = round(part["value"], 3) + 0.0  # no minus before a nought
  half = "" if part["low"] is None else f" ± {(part['high'] - part['low']) / 2:.3f}"
  return f"{value:+.3f}{half}"


def _task_cell(part: dict[str, Any] | None) -> str:
  if part is None:
    return DASH
  if "p" not in part:
    return interval(part)
  sure = part["holm"] is not None and part["holm"] < 0.05
  return _signed(part) + (" *" if sure else "")


def _p(value: float | None) -> str:
  if value is None:
    return DASH
  return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _number(value: float | None, form: str) -> str:
  return DASH if value is None else format(value, form)


def _escape(cell: str) -> str:
  return cell.replace("|", "\\|").replace("\n", " ")
