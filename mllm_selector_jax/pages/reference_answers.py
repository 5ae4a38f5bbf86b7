"""Says in words on which tasks the arms of a comparison beat the reference."""

from collections.abc import Sequence
from typing import Any

# The note under the answers.
READING = (
  "Above and below mean that the 95 % interval of the difference from the reference,"
  " paired by seed, excludes 0 for that task on its own; by Holm, that its p-value is"
  " below .05 after adjustment for all arms and tasks."
)


def describe_answers(answers: Sequence[dict[str, Any]]) -> list[str]:
  """Describe each entry of `against_reference.answer` in one or two sentences."""
  return [_describe(answer) for answer in answers]


def _describe(answer: dict[str, Any]) -> str:
  name = f"{answer['strategy']} at {answer['budget']} ({answer['rows']:,.0f} rows)"
  above, below = answer["above"], answer["below"]
  mean = f"Mean of the tasks: {_difference(answer['mean'])}."
  if answer["mean"]["count"] == 1:
    return (
      f"{name}: one seed has no interval, so that nothing is decided. It is higher than"
      f" the reference on {_count(above['leaning'], answer['tasks'])}, lower on"
      f" {_count(below['leaning'], answer['tasks'])}. {mean}"
    )
  return (
    f"{name} is above the reference on {_side(above, answer['tasks'])}, below it on"
    f" {_side(below, answer['tasks'])}. {mean}"
  )


def _side(side: dict[str, list[str]], total: int) -> str:
  text = _count(side["tasks"], total)
  if not side["tasks"]:
    return text
  if side["holm"] == side["tasks"]:
    return f"{text}, by Holm too"
  return f"{text}, by Holm on {_count(side['holm'], total)}"


def _count(tasks: list[str], total: int) -> str:
  if not tasks:
    return "none"
  if len(tasks) == total:
    return "the only task" if total == 1 else f"all {total} tasks"
  return f"{len(tasks)} of {total} tasks ({', '.join(tasks)})"


def _difference(test: dict[str, Any]) -> str:
  value = round(test["value"], 3) + 0.0  # avoid -0.000
  if test["low"] is None:
    return f"{value:+.3f}"
  return f"{value:+.3f} ± {(test['high'] - test['low']) / 2:.3f}"
