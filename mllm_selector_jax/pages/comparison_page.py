"""Shows a comparison: as Markdown tables, and as one self-contained page."""

import base64
import itertools
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.comparison.comparison_summary import LEVEL, MACRO, is_sure
from mllm_selector_jax.pages.comparison_verdict import describe_verdicts, warn_of_seeds
from mllm_selector_jax.pages.page_templates import make_environment
from mllm_selector_jax.pages.reference_answers import READING, describe_answers

DASH = "-"
# The note under every table of differences.
RULE = (
  f"*: p (Holm) is below {LEVEL:g}. It is the p-value of the paired t-test over seeds,"
  " adjusted by Holm's method for all differences of the same kind in the table. ± is"
  " half of the 95 % interval of each difference on its own. It is not adjusted, so an"
  " interval may exclude 0 without a star."
)


class Table(NamedTuple):
  """A table as text.

  Attributes:
    title: Title of the table.
    head: Names of the columns.
    lines: Cells of each line, as many as there are columns.
    note: Text under the table; may be empty.
  """

  title: str
  head: list[str]
  lines: list[list[str]]
  note: str = ""


def format_markdown(results: dict[str, Any], costs: dict[str, Any]) -> str:
  """Format all tables as Markdown, each under its title."""
  parts = []
  if answers := describe_answers(results.get("against_reference", [])):
    items = "\n".join(f"- {_escape(text)}" for text in answers)
    parts += [f"**Against the reference**\n\n{items}", READING]
  for title, head, lines, note in list_tables(results, costs):
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    rows += ["| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines]
    parts.append(f"**{title}**\n\n" + "\n".join(rows))
    if note:
      parts.append(note.replace("*", "\\*"))
  return "\n\n".join(parts) + "\n"


def render(
  results: dict[str, Any],
  costs: dict[str, Any],
  picture: bytes,
  title: str,
  tasks: bytes = b"",
) -> str:
  """Render the page as HTML without scripts; its links lead to the arms' selections.

  Args:
    results: `results.json` of the comparison.
    costs: `costs.json` of the comparison.
    picture: The plot, as PNG.
    title: Title of the page.
    tasks: The plot of all tasks, as PNG; empty for none.
  """
  return (
    make_environment()
    .get_template("comparison.html.j2")
    .render(
      title=title,
      plan=results["plan"],
      verdicts=describe_verdicts(results),
      warning=warn_of_seeds(results),
      picture=_encode_picture(picture),
      task_picture=_encode_picture(tasks),
      selections=list_selections(results),
      answers=describe_answers(results.get("against_reference", [])),
      reading=READING,
      tables=list(list_tables(results, costs)),
      left_out=results["tasks_left_out"],
    )
  )


def _encode_picture(picture: bytes) -> str:
  encoded = base64.b64encode(picture).decode()
  return f"data:image/png;base64,{encoded}" if picture else ""


def list_selections(
  results: dict[str, Any],
) -> list[tuple[str, str, list[tuple[int, str]]]]:
  """Return strategy and budget of each arm, and for each seed where its records are.

  The places are relative to the page.
  """
  arms: dict[tuple[str, str], list[tuple[int, str]]] = {}
  for line in results.get("arms", []):
    place = f"../arms/{line['arm']}/selection/selected.json"
    seeds = arms.setdefault((line["strategy"], line["budget"]), [])
    seeds.append((line["seed"], urllib.parse.quote(place)))
  return [(*arm, seeds) for arm, seeds in arms.items()]


def list_tables(results: dict[str, Any], costs: dict[str, Any]) -> Iterator[Table]:
  """Yield every table, without columns that have only dashes."""
  for table in _list_full_tables(results, costs):
    has_values = [
      any(line[at] != DASH for line in table.lines) for at in range(len(table.head))
    ]
    yield table._replace(
      head=list(itertools.compress(table.head, has_values)),
      lines=[list(itertools.compress(line, has_values)) for line in table.lines],
    )


def _list_full_tables(
  results: dict[str, Any], costs: dict[str, Any]
) -> Iterator[Table]:
  table = results["table"]
  macro = [entry for entry in table if entry["part"] == MACRO]
  yield Table(
    "Mean of the tasks",
    [
      *("strategy", "budget", "rows", "accuracy", "of the full pool's"),
      *("minus random", "p", "p (Holm)", "minus full", "p", "p (Holm)"),
      *("minus reference", "p", "p (Holm)"),
    ],
    [
      [
        *(entry["strategy"], entry["budget"], f"{entry['rows']:,.0f}"),
        *(interval(entry["mean"]), interval(entry["of_full"])),
        *_test(entry["minus_random"]),
        *_test(entry["minus_full"]),
        *_test(entry["minus_reference"]),
      ]
      for entry in macro
    ],
    RULE,
  )
  first = f"minus {results['plan']['first']}"
  if compared := [entry for entry in macro if entry["minus_first"]]:
    yield Table(
      f"Mean of the tasks, {first}",
      ["strategy", "budget", "accuracy", first, "p", "p (Holm)"],
      [
        [
          *(entry["strategy"], entry["budget"], interval(entry["mean"])),
          *_test(entry["minus_first"]),
        ]
        for entry in compared
      ],
      RULE,
    )
  tasks = [entry for entry in table if entry["part"] == "task"]
  names = list(dict.fromkeys(entry["task"] for entry in tasks))
  for title, key in (
    ("By task", "mean"),
    ("By task, minus random", "minus_random"),
    ("By task, minus full", "minus_full"),
    ("By task, minus reference", "minus_reference"),
    (f"By task, {first}", "minus_first"),
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
      note = "" if key == "mean" else RULE
      yield Table(title, ["strategy", "budget", *names], lines, note)
  if costs["table"]:
    yield Table(
      "Cost (means over seeds; selection: seed model, scoring, bound and strategy)",
      [
        *("strategy", "budget", "selection, FLOPs", "tuning, FLOPs"),
        *("both, share of full tuning", "selection, s", "tuning, s"),
        "both, share of full tuning, s",
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
    yield Table(
      "Overlap of selections (Jaccard: rows in both, divided by rows in either)",
      ["budget", "strategy", "strategy", "overlap"],
      [
        [line["budget"], line["first"], line["second"], interval(line["jaccard"])]
        for line in results["overlap"]
      ],
    )


def interval(part: dict[str, Any] | None) -> str:
  """Format a mean with half of its interval."""
  if part is None:
    return DASH
  half = "" if part["low"] is None else f" ± {(part['high'] - part['low']) / 2:.3f}"
  return f"{part['value']:.3f}{half}"


def _test(part: dict[str, Any] | None) -> Sequence[str]:
  if part is None:
    return (DASH, DASH, DASH)
  return _difference(part), _p(part["p"]), _p(part["holm"])


def _difference(part: dict[str, Any]) -> str:
  """Format a difference with half of its interval, and a star if `RULE` gives one."""
  value = round(part["value"], 3) + 0.0  # avoid -0.000
  half = "" if part["low"] is None else f" ± {(part['high'] - part['low']) / 2:.3f}"
  return f"{value:+.3f}{half}" + (" *" if is_sure(part) else "")


def _task_cell(part: dict[str, Any] | None) -> str:
  if part is None:
    return DASH
  return _difference(part) if "p" in part else interval(part)


def _p(value: float | None) -> str:
  if value is None:
    return DASH
  return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _number(value: float | None, form: str) -> str:
  return DASH if value is None else format(value, form)


def _escape(cell: str) -> str:
  return cell.replace("|", "\\|").replace("\n", " ")
