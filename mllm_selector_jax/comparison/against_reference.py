"""Says on which tasks the arms of a comparison beat the reference."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.comparison.comparison_summary import MACRO, is_sure


class Side(NamedTuple):
  """Tasks on which an arm differs from the reference in one direction.

  Attributes:
    tasks: those whose 95 % interval excludes 0, each on its own.
    holm: those of them whose difference is significant by Holm's method too.
    leaning: those whose mean difference has this sign, whatever its interval.
  """

  tasks: list[str]
  holm: list[str]
  leaning: list[str]


def answer(table: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Answers for each arm on which tasks it is above and below the reference.

  Args:
    table: the table of `comparison_summary.tabulate`.

  Returns:
    One entry for each arm that was compared with the reference, in the order of the
    table; none without a reference. Its keys are "strategy", "budget", "rows", "seeds",
    "tasks" (the number of tasks), "above" and "below" (the fields of `Side`), and
    "mean" (the difference of the mean over tasks, as in the table).
  """
  answers = []
  for entry in table:
    if entry["part"] != MACRO or not entry["minus_reference"]:
      continue
    arm = entry["strategy"], entry["budget"]
    tests = {
      line["task"]: line["minus_reference"]
      for line in table
      if line["part"] == "task" and (line["strategy"], line["budget"]) == arm
    }
    answers.append(
      {
        **{name: entry[name] for name in ("strategy", "budget", "rows", "seeds")},
        "tasks": len(tests),
        "above": find_side(tests, 1)._asdict(),
        "below": find_side(tests, -1)._asdict(),
        "mean": entry["minus_reference"],
      }
    )
  return answers


def find_side(tests: dict[str, dict[str, Any]], sign: int) -> Side:
  """Finds the tasks whose difference has a sign.

  Args:
    tests: the difference on each task, with value, low, high and holm.
    sign: 1 for above the reference, -1 for below it.
  """
  leaning = [task for task, test in tests.items() if sign * test["value"] > 0]
  bound = "low" if sign > 0 else "high"
  tasks = [
    task
    for task in leaning
    if tests[task][bound] is not None and sign * tests[task][bound] > 0
  ]
  return Side(tasks, [task for task in tasks if is_sure(tests[task])], leaning)
