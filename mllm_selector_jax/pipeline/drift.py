"""Finds sources and answer formats whose share a selection changed much."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from mllm_selector_jax.pipeline.candidates import Eligible
from mllm_selector_jax.selection.selection import Selection

COLUMNS = {
  "source": "source",
  "format": "answer format",
}  # of the pool, and their names
TIMES = 1.5  # the factor by which a share has to grow or to shrink
LEAST = 0.05  # the least difference of two shares
ERRORS = 4.0  # standard errors by which random rows hardly ever differ
MOST_VALUES = 500  # of a column; with more, it says nothing of a kind of rows
NAMED = 3  # values that a warning names


class Shift(NamedTuple):
  """A kind of rows whose share changed much.

  Attributes:
    column: a key of `COLUMNS`.
    name: the value of the column.
    pool: its share of the eligible rows.
    kept: its share of the kept rows.
  """

  column: str
  name: str
  pool: float
  kept: float


def find_shifts(
  column: str, values: np.ndarray, kept: Bool[np.ndarray, " N"]
) -> list[Shift]:
  """Returns the values whose share changed much, the largest change first.

  A share changed much if it grew or shrank by a factor of 1.5 or more, by 5 points or
  more, and by more than the sampling error of as many random rows allows.

  Args:
    column: the column's name.
    values: [N] a text for each row.
    kept: which rows are kept.
  """
  count = int(kept.sum())
  names, index = np.unique(values.astype(str), return_inverse=True)
  if count == 0 or not 1 < len(names) <= MOST_VALUES:
    return []
  pool = np.bincount(index, minlength=len(names)) / len(index)
  share = np.bincount(index[kept], minlength=len(names)) / count
  shifts = []
  for name, before, after in zip(names, pool.tolist(), share.tolist(), strict=True):
    error = math.sqrt(before * (1 - before) / count)
    if (
      abs(after - before) >= max(LEAST, ERRORS * error)
      and max(before, after) >= TIMES * min(before, after)
    ):  # fmt: skip
      shifts.append(Shift(column, str(name), before, after))
  return sorted(shifts, key=lambda shift: -abs(shift.kept - shift.pool))


def list_shifts(eligible: Eligible, chosen: Selection) -> list[Shift]:
  """Returns the shifts of all `COLUMNS`."""
  shifts = []
  for column in COLUMNS:
    values = np.asarray(getattr(eligible.pool, column)[eligible.rows], object)
    shifts += find_shifts(column, values, chosen.kept)
  return shifts


def list_warnings(shifts: list[Shift], normalised: str) -> list[str]:
  """Returns a warning for each column with shifts.

  Args:
    shifts: from `list_shifts`.
    normalised: the value of `select.normalise`.
  """
  warnings = []
  for column, title in COLUMNS.items():
    own = [shift for shift in shifts if shift.column == column]
    if not own:
      continue
    parts = [
      f"{shift.name!r} is {shift.kept:.0%} of the kept rows and {shift.pool:.0%} of the"
      " eligible ones"
      for shift in own[:NAMED]
    ]
    more = f" ({len(own) - NAMED:,} more in summary.json)" if len(own) > NAMED else ""
    advice = "select.target=pool keeps the groups' shares"
    if normalised != column:
      within = f"select.normalise={column} ranks necessity inside each {title}"
      advice = f"{within}; {advice}"
    warnings.append(
      f"the share of a{'n' if title[0] in 'aeiou' else ''} {title} changed:"
      f" {'; '.join(parts)}{more}. If you do not want this: {advice}."
    )
  return warnings
