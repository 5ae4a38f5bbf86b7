"""Selections that others published, each of which a comparison has as an arm."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from mllm_selector_jax.inputs.lists import split_columns
from mllm_selector_jax.selection import budget as budgets
from mllm_selector_jax.types import InputError

NAME = re.compile(r"[A-Za-z0-9_.]+")
_RELATIVE = re.compile(r"(\d[\d_,]*(?:\.\d+)?)%([A-Za-z_][A-Za-z0-9_.]*)")
_UNITS = ("ref", "flops")  # what else may follow the sign in a budget


def read_published(value: Any) -> dict[str, str]:
  """Reads `compare.published`: the file of each selection by its name.

  Args:
    value: "icons=icons.json, less=less.csv@influence", a dict, or nothing.

  Raises:
    InputError: the value has another form, or a name occurs twice or cannot be that of
      a folder.
  """
  option = "compare.published"
  if value is None or value == "":
    return {}
  pairs: list[tuple[Any, ...]] = [()]
  if hasattr(value, "items"):
    pairs = list(value.items())
  elif isinstance(value, str):
    parts = [part for part in value.split(",") if part.strip()]
    pairs = [tuple(part.split("=", 1)) for part in parts]
  files: dict[str, str] = {}
  for pair in pairs:
    if len(pair) != 2 or not all(isinstance(x, str) and x.strip() for x in pair):
      raise InputError(
        f"{option} is {value!r}; it gives each selection a name and a file, as in"
        ' "icons=icons.json, less=less.csv@influence".'
      )
    name, file = pair[0].strip(), pair[1].strip()
    if not NAME.fullmatch(name) or name[0].isdigit() or name in _UNITS:
      raise InputError(
        f"{option} has the name {name!r}; name a selection by letters, digits, dots and"
        f" underscores, a letter first, and not {' or '.join(_UNITS)}."
      )
    if name in files:
      raise InputError(f"{option} has {name!r} twice; give each a name of its own.")
    files[name] = file
  return files


def has_scores(file: str) -> bool:
  """Returns whether the rows of a file have scores, so that it can fill any budget."""
  return bool(split_columns(file)[1].score)


def split_budget(text: str) -> tuple[str, str]:
  """Splits a budget such as "50%icons" into "50%ref" and the selection's name.

  Returns:
    The budget for `select.budget`, and the name; the text and "" if it has none.
  """
  match = _RELATIVE.fullmatch(text.strip())
  if not match or match[2] in _UNITS:
    return text, ""
  return f"{match[1]}%ref", match[2]


def parse_budget(text: Any, option: str) -> tuple[str, budgets.Budget]:
  """Reads a budget that may be relative to a published selection.

  Returns:
    The name of that selection, or "", and the budget.

  Raises:
    InputError: the text is not a budget.
  """
  amount, name = split_budget(str(text))
  return name, budgets.parse(amount if name else text, option)


def check_published(
  published: Mapping[str, str], budget_texts: Collection[str], taken: Collection[str]
) -> None:
  """Checks published selections against the rest of the plan.

  Args:
    published: from `read_published`.
    budget_texts: the budgets of the comparison.
    taken: names of other arms.

  Raises:
    InputError: a name is that of another arm, a budget is relative to none of them, or
      there is no order to fill a budget that is relative to another list.
  """
  for name in published:
    if name in taken:
      raise InputError(
        f"compare.published has {name!r}, which is a strategy or a variant; give the"
        " selection another name."
      )
  for text in budget_texts:
    name, budget = parse_budget(text, "compare.budgets")
    if name and name not in published:
      raise InputError(
        f"compare.budgets has {text!r}, and compare.published has no {name!r}; it has"
        f" {', '.join(published) or 'none'}."
      )
    scored = [other for other, file in published.items() if has_scores(file)]
    if scored and budget.kind == "reference":
      raise InputError(
        f"compare.budgets has {text!r}, relative to one list, and {scored[0]!r} of"
        " compare.published is another, whose scores are to fill it; give that budget"
        " in rows."
      )
