"""Reads budgets in the forms that people write: "500", "5%", "2Mtok", "50%ref"."""

import dataclasses
import re
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int

from mllm_selector_jax.types import InputError

_FORM = re.compile(r"(\d[\d_,]*(?:\.\d+)?) ?(%ref|%|[kMGB]?tok|rows?)?")
_KINDS = {"%": "percent", "%ref": "reference"}  # by unit; others are rows or tokens
_SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


@dataclasses.dataclass(frozen=True)
class Budget:
  """How much of a pool to keep.

  Attributes:
    kind: "rows", "percent" (of the eligible rows), "reference" (per cent of the number
      of rows of the reference) or "tokens" (of training).
    amount: an exact number, so that 0.1 % of a million is 1,000.
    text: the budget as it was written.
  """

  kind: str
  amount: Fraction
  text: str


@dataclasses.dataclass(frozen=True)
class Limit:
  """A budget applied to a pool: the maximum of rows, or of tokens.

  Attributes:
    rows: the maximum of rows, never above the number of eligible rows.
    tokens: the maximum of training tokens; None if only rows are limited.
    warning: a message for the user, or an empty text.
  """

  rows: int
  tokens: int | None = None
  warning: str = ""


def is_budget(text: str) -> bool:
  """Returns whether a text has the form of a budget."""
  return _FORM.fullmatch(text.strip()) is not None


def parse(text: object, name: str = "budget") -> Budget:
  """Reads a budget.

  Args:
    text: a Budget, a whole number, or "500", "500 rows", "5%", "50%ref", "2Mtok" (k,
      M, G or B).
    name: the name of the option, for the message.

  Raises:
    InputError: the text is not a budget, or it is 0, negative or above 100 %.
  """
  if isinstance(text, Budget):
    return text
  written = str(text).strip()
  match = None if isinstance(text, bool) else _FORM.fullmatch(written)
  allowed = (
    'a budget is a number of rows ("500"), a share of the eligible rows ("5%") or of'
    ' the number of rows of the reference ("50%ref"), or training tokens ("2Mtok"),'
    " above 0"
  )
  if not match:
    raise InputError(f"{name} is {text!r}; {allowed}.")
  amount = Fraction(re.sub("[_,]", "", match[1]))
  unit = match[2] or "rows"
  kind = _KINDS.get(unit, "tokens" if unit.endswith("tok") else "rows")
  if kind == "tokens":
    amount *= _SCALE[unit.removesuffix("tok")]
  if amount <= 0:
    raise InputError(f"{name} is {text!r}, which keeps nothing; {allowed}.")
  if kind == "percent" and amount > 100:
    raise InputError(
      f"{name} is {text!r}, above 100%, which is all of the eligible rows; {allowed}."
    )
  if kind == "rows" and amount.denominator != 1:
    hint = f', as "{float(100 * amount):g}%"' if amount < 1 else ""
    raise InputError(
      f"{name} is {text!r}, not a whole number of rows; {allowed}."
      f" Write a share with a per cent sign{hint}."
    )
  return Budget(kind, amount, written)


def is_relative(text: object) -> bool:
  """Returns whether a budget is a share of the rows of the reference, as "50%ref".

  Raises:
    InputError: the text is not a budget.
  """
  return parse(text).kind == "reference"


def relate(text: object, reference: int | None, name: str = "budget") -> Budget:
  """Converts a share of the rows of the reference to a budget in rows.

  Args:
    text: a budget, in any form that `parse` reads.
    reference: the number of rows of the reference; None if there is none.
    name: the name of the option, for messages.

  Returns:
    The budget in rows, with its text; a budget of another kind as it is.

  Raises:
    InputError: the text is not a budget, there is no reference to relate it to, or it
      leaves no row.
  """
  budget = parse(text, name)
  if budget.kind != "reference":
    return budget
  if reference is None:
    raise InputError(
      f"{name} is {budget.text}, a share of the rows of the reference, and there is no"
      " reference; give the mixture that is trained on today, as"
      " --config.select.reference=FILE, or another budget."
    )
  rows = _round(reference, budget.amount)
  if rows < 1:
    raise InputError(
      f"{name} is {budget.text}, and the reference has {reference:,} rows, which leaves"
      f" no row; one row is {100 / max(reference, 1):.3g}%ref."
    )
  return Budget("rows", Fraction(rows), budget.text)


def _round(rows: int, percent: Fraction) -> int:
  """Returns a share of a number of rows, exactly, with half a row rounded up."""
  # Rounding up means that the number of rows never falls as the share grows.
  return int((2 * rows * percent + 100) // 200)


def resolve(
  budget: str | int | Budget,
  eligible: int,
  tokens: Int[np.ndarray, " N"] | None = None,
  name: str = "budget",
) -> Limit:
  """Converts a budget to a limit on the rows of a pool.

  Args:
    budget: a budget, in any form that `parse` reads. A share of the rows of the
      reference has to be converted by `relate` before.
    eligible: the number of rows that may be kept.
    tokens: the training tokens of each of these rows; required for a budget in
      tokens.
    name: the name of the option, for messages.

  Returns:
    The limit. If the budget is above what is eligible, the limit is all eligible
    rows, with a warning.

  Raises:
    InputError: no row is eligible, the budget leaves no row, is in tokens and the
      token counts are not known, or is relative to a reference.
  """
  budget = relate(budget, None, name)
  if eligible < 1:
    raise InputError(f"{name} is {budget.text}, but no row of the pool is eligible.")
  if budget.kind == "tokens":
    if tokens is None:
      raise InputError(
        f"{name} is {budget.text}, but the rows' token counts are not known; give"
        " a number of rows or a percentage."
      )
    limit, total = int(budget.amount), int(tokens.sum())
    if limit < int(tokens.min()):
      raise InputError(
        f"{name} is {budget.text}, which leaves no row: the shortest of the"
        f" {eligible:,} eligible rows has {int(tokens.min()):,} tokens."
      )
    warning = _above(name, budget, f"{total:,} tokens") if limit > total else ""
    return Limit(eligible, limit, warning)
  if budget.kind == "percent":
    rows = _round(eligible, budget.amount)
  else:
    rows = int(budget.amount)
  if rows < 1:
    raise InputError(
      f"{name} is {budget.text} of {eligible:,} eligible rows, which leaves no row;"
      f" one row is {100 / eligible:.3g}%."
    )
  warning = _above(name, budget, f"{eligible:,} rows") if rows > eligible else ""
  return Limit(min(rows, eligible), None, warning)


def resolve_count(
  text: str | int | Budget,
  eligible: Bool[np.ndarray, " N"],
  tokens: Int[np.ndarray, " N"],
  name: str = "budget",
) -> int:
  """Returns the number of rows in a random draw of a budget.

  Args:
    text: a budget, in any form that `parse` reads.
    eligible: which rows may be drawn.
    tokens: the training tokens of every row.
    name: the name of the option, for messages.

  Returns:
    The number of rows; for a budget in tokens, the number that is expected to have
    that many tokens.
  """
  lengths = tokens[eligible]
  limit = resolve(text, len(lengths), lengths, name)
  if limit.tokens is None:
    return limit.rows
  return max(1, min(limit.rows, int(limit.tokens * len(lengths) // lengths.sum())))


def _above(name: str, budget: Budget, total: str) -> str:
  return f"{name} is {budget.text}, above the {total} that are eligible: all are kept."
