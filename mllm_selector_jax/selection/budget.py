"""Reads budgets as people write them: "500", "5%", "2Mtok", "3e18flops", "50%ref"."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int

from mllm_selector_jax.types import InputError

_FORM = re.compile(
  r"(\d[\d_,]*(?:\.\d+)?)(e\d{1,2}(?= ?flops))? ?"
  r"(%ref|%flops|%|[kMGB]?tok|[MGTPE]?flops|rows?)?"
)
# By unit; others are rows, tokens or FLOPs.
_KINDS = {"%": "percent", "%ref": "reference", "%flops": "flops share"}
_SCALE = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}
_SCALE |= {"T": 10**12, "P": 10**15, "E": 10**18}

TOKENS, FLOPS = "tokens", "MFLOPs"  # the units in which the cost of a row is counted
_UNITS = {"tokens": TOKENS, "flops": FLOPS, "flops share": FLOPS}  # by kind
# Costs of rows are whole numbers, so that their sums are exact in any order.
_WORDS = {TOKENS: "token counts", FLOPS: "FLOPs"}
Costs = Mapping[str, Int[np.ndarray, " N"]]


@dataclasses.dataclass(frozen=True)
class Budget:
  """How much of a pool to keep.

  Attributes:
    kind: "rows", "percent" (of the eligible rows), "reference" (per cent of the number
      of rows of the reference), "tokens" (of training), "flops" (of tuning) or "flops
      share" (per cent of those of all eligible rows).
    amount: an exact number, so that 0.1 % of a million is 1,000.
    text: the budget as it was written.
  """

  kind: str
  amount: Fraction
  text: str

  @property
  def unit(self) -> str:
    """The unit of the cost that is limited; empty if the number of rows is."""
    return _UNITS.get(self.kind, "")


@dataclasses.dataclass(frozen=True)
class Limit:
  """A budget applied to a pool: the maximum of rows, or of what they cost.

  Attributes:
    rows: the maximum of rows, never above the number of eligible rows.
    cost: the maximum of the sum of their costs; None if only rows are limited.
    unit: the unit of the cost, `TOKENS` or `FLOPS`.
    warning: a message for the user, or an empty text.
  """

  rows: int
  cost: int | None = None
  unit: str = ""
  warning: str = ""


def is_budget(text: str) -> bool:
  """Returns whether a text has the form of a budget."""
  return _FORM.fullmatch(text.strip()) is not None


def parse(text: object, name: str = "budget") -> Budget:
  """Reads a budget.

  Args:
    text: a Budget, a whole number, or "500", "500 rows", "5%", "50%ref", "2Mtok" (k,
      M, G or B), "3e18flops" or "3Eflops" (M, G, T, P or E), "5%flops".
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
    ' the number of rows of the reference ("50%ref"), training tokens ("2Mtok"), or'
    ' FLOPs of tuning ("3e18flops", or "5%flops" of those of all eligible rows), above'
    " 0"
  )
  if not match:
    raise InputError(f"{name} is {text!r}; {allowed}.")
  amount = Fraction(re.sub("[_,]", "", match[1]) + (match[2] or ""))
  unit = match[3] or "rows"
  kind = _KINDS.get(unit, "rows")
  for limited, suffix in (("tokens", "tok"), ("flops", "flops")):
    if kind == "rows" and unit.endswith(suffix):
      kind = limited
      amount *= _SCALE[unit.removesuffix(suffix)]
  if amount <= 0:
    raise InputError(f"{name} is {text!r}, which keeps nothing; {allowed}.")
  if kind in ("percent", "flops share") and amount > 100:
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
  costs: Costs | None = None,
  name: str = "budget",
) -> Limit:
  """Converts a budget to a limit on the rows of a pool.

  Args:
    budget: a budget, in any form that `parse` reads. A share of the rows of the
      reference has to be converted by `relate` before.
    eligible: the number of rows that may be kept.
    costs: what each of these rows costs, by unit; required is the budget's own unit.
    name: the name of the option, for messages.

  Returns:
    The limit. If the budget is above what is eligible, the limit is all eligible
    rows, with a warning.

  Raises:
    InputError: no row is eligible, the budget leaves no row, limits a cost that is
      not known, or is relative to a reference.
  """
  budget = relate(budget, None, name)
  if eligible < 1:
    raise InputError(f"{name} is {budget.text}, but no row of the pool is eligible.")
  if budget.unit:
    return _limit_cost(budget, eligible, costs or {}, name)
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
  return Limit(min(rows, eligible), warning=warning)


def _limit_cost(budget: Budget, eligible: int, costs: Costs, name: str) -> Limit:
  unit = budget.unit
  if unit not in costs:
    raise InputError(
      f"{name} is {budget.text}, but the rows' {_WORDS[unit]} are not known; give"
      " a number of rows or a percentage."
    )
  total, least = int(costs[unit].sum()), int(costs[unit].min())
  if budget.kind == "flops share":
    limit = int(total * budget.amount // 100)
  else:
    limit = int(budget.amount // (10**6 if unit == FLOPS else 1))
  if limit < least:
    raise InputError(
      f"{name} is {budget.text}, which leaves no row: the shortest of the"
      f" {eligible:,} eligible rows has {least:,} {unit}."
    )
  warning = _above(name, budget, f"{total:,} {unit}") if limit > total else ""
  return Limit(eligible, limit, unit, warning)


def resolve_count(
  text: str | int | Budget,
  eligible: Bool[np.ndarray, " N"],
  costs: Costs,
  name: str = "budget",
) -> int:
  """Returns the number of rows in a random draw of a budget.

  Args:
    text: a budget, in any form that `parse` reads.
    eligible: which rows may be drawn.
    costs: what every row costs, by unit.
    name: the name of the option, for messages.

  Returns:
    The number of rows; for a budget that limits a cost, the number that is expected
    to cost that much.
  """
  costs = {unit: cost[eligible] for unit, cost in costs.items()}
  limit = resolve(text, int(eligible.sum()), costs, name)
  if limit.cost is None:
    return limit.rows
  total = int(costs[limit.unit].sum())
  return max(1, min(limit.rows, limit.cost * limit.rows // total))


def fit(
  limit: Limit,
  cost: Int[np.ndarray, " N"] | None,
  forced: Bool[np.ndarray, " N"],
  choose: Callable[[int], np.ndarray],
  reserved: int = 0,
) -> int:
  """Finds the number of rows to keep within a limit, by bisection if it is on a cost.

  Args:
    limit: from `resolve`.
    cost: what each row costs, in the unit of the limit; None if rows are limited.
    forced: rows that are kept before all others.
    choose: maps a number of rows to the kept rows, as a mask or as row numbers. The
      rows for a larger number must include those for a smaller one.
    reserved: how many of the forced rows are there for `select.least`.

  Returns:
    The number of rows; for a limit on a cost, the largest number whose rows fit.

  Raises:
    InputError: the forced rows alone exceed the budget, or no row fits.
  """
  count = int(forced.sum())
  who, remedy = "forced in", "force fewer"
  if reserved:
    who += f" or reserved by select.least ({reserved:,})"
    remedy = "force and reserve fewer"
  if limit.cost is None:
    if count > limit.rows:
      raise InputError(
        f"{count:,} rows are {who}, above the budget of {limit.rows:,}; raise the"
        f" budget or {remedy}."
      )
    return limit.rows
  assert cost is not None, "a limit on a cost was resolved from it"
  if count and int(cost[forced].sum()) > limit.cost:
    raise InputError(
      f"The {count:,} rows {who} have {int(cost[forced].sum()):,} {limit.unit}, above"
      f" the budget of {limit.cost:,}; raise the budget or {remedy}."
    )
  low, high = count, limit.rows
  while low < high:
    middle = (low + high + 1) // 2
    if int(cost[choose(middle)].sum()) <= limit.cost:
      low = middle
    else:
      high = middle - 1
  if low < 1:
    raise InputError(
      f"The budget of {limit.cost:,} {limit.unit} leaves no row: the first row chosen"
      " has more than that; raise the budget."
    )
  return low


def _above(name: str, budget: Budget, total: str) -> str:
  return f"{name} is {budget.text}, above the {total} that are eligible: all are kept."
