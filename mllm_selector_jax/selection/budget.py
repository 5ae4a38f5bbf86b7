"""Budgets as people write them: "500" rows, "5%", "2Mtok"."""

import dataclasses
import re
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int

from mllm_selector_jax.types import InputError

_FORM = re.compile(r"(\d[\d_,]*(?:\.\d+)?) ?(%|[kMGB]?tok|rows?)?")
_SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


@dataclasses.dataclass(frozen=True)
class Budget:
  """How much to keep.

  Attributes:
    kind: "rows", "percent" (of the eligible rows) or "tokens" (of training).
    amount: exact, so that 0.1 % of a million is 1,000.
    text: as it was written.
  """

  kind: str
  amount: Fraction
  text: str


@dataclasses.dataclass(frozen=True)
class Limit:
  """A budget met with a pool: at most this many rows, or this many tokens.

  Attributes:
    rows: the most rows, never above the eligible ones.
    tokens: the most training tokens, None where rows alone decide.
    warning: what the user should know, or an empty text.
  """

  rows: int
  tokens: int | None = None
  warning: str = ""


def is_budget(text: str) -> bool:
  """Whether it has a budget's form."""
  return _FORM.fullmatch(text.strip()) is not None


def parse(text: object, name: str = "budget") -> Budget:
  """Reads a budget.

  Args:
    text: a Budget, a whole number, or "500", "500 rows", "5%", "2Mtok" (k, M, G
      or B).
    name: the option's name, for the message.

  Raises:
    InputError: it is not a budget, it is 0 or negative, or above 100 %.
  """
  if isinstance(text, Budget):
    return text
  written = str(text).strip()
  match = None if isinstance(text, bool) else _FORM.fullmatch(written)
  allowed = (
    'a budget is a number of rows ("500"), a share of the eligible rows ("5%")'
    ' or training tokens ("2Mtok"), above 0'
  )
  if not match:
    raise InputError(f"{name} is {text!r}; {allowed}.")
  amount = Fraction(re.sub("[_,]", "", match[1]))
  unit = match[2] or "rows"
  kind = "percent" if unit == "%" else "tokens" if unit.endswith("tok") else "rows"
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


def resolve(
  budget: str | int | Budget,
  eligible: int,
  tokens: Int[np.ndarray, " N"] | None = None,
  name: str = "budget",
) -> Limit:
  """Meets a budget with a pool.

  Args:
    budget: what `parse` reads.
    eligible: rows that may be kept.
    tokens: training tokens of each of them; a budget in tokens needs it.
    name: the option's name, for messages.

  Returns:
    The limit; above what is eligible it is everything, with a warning.

  Raises:
    InputError: no row is eligible, the budget leaves none, or it is in tokens
      and they are not known.
  """
  budget = parse(budget, name)
  if eligible < 1:
    raise InputError(f"{name} is {budget.text}, but no row of the pool is eligible.")
  if budget.kind == "tokens":
    if tokens is None:
      raise InputError(
        f"{name} is {budget.text}, but the rows' token counts are not known; give"
        " a number of rows or a percentage."
      )
    limit, most = int(budget.amount), int(tokens.sum())
    if limit < int(tokens.min()):
      raise InputError(
        f"{name} is {budget.text}, which leaves no row: the shortest of the"
        f" {eligible:,} eligible rows has {int(tokens.min()):,} tokens."
      )
    warning = _above(name, budget, f"{most:,} tokens") if limit > most else ""
    return Limit(eligible, limit, warning)
  if budget.kind == "percent":
    # Half a row rounds up; the number of rows never falls as the share grows.
    rows = int((2 * eligible * budget.amount + 100) // 200)
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
  """How many rows a random draw of this budget has (expected, for tokens)."""
  lengths = tokens[eligible]
  limit = resolve(text, len(lengths), lengths, name)
  if limit.tokens is None:
    return limit.rows
  return max(1, min(limit.rows, int(limit.tokens * len(lengths) // lengths.sum())))


def _above(name: str, budget: Budget, most: str) -> str:
  return f"{name} is {budget.text}, above the {most} that are eligible: all are kept."
