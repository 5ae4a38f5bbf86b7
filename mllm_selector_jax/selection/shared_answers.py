"""Suspects that share one answer: a class that is not known, more than wrong rows."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt64

LEAST_SUSPECTS = 20  # of fewer, many share an answer by chance
LEAST_SHARE = 0.5  # of the suspects
TIMES = 3  # as large as among the rows the odds of the answer have to be


class Shared(NamedTuple):
  """An answer that most suspects have.

  Attributes:
    group: whose rows these are; None for the whole selection.
    row: a suspect row with the answer.
    suspects: how many suspects have the answer.
    of: how many suspects there are.
    share: of all rows that have the answer.
  """

  group: int | None
  row: int
  suspects: int
  of: int
  share: float


def find_shared(
  suspect: Bool[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  answers: UInt64[np.ndarray, " N"],
) -> tuple[Shared, ...]:
  """Finds what suspects share, first over all rows and then group by group.

  Of `LEAST_SUSPECTS` suspects or more, at least `LEAST_SHARE` have the answer, and its
  odds among them are at least `TIMES` those among the rows.

  Args:
    suspect: of each row.
    groups: from 0.
    answers: equal where the rows' answers are.
  """
  whole = _find(suspect, np.zeros_like(groups), answers)
  found = [each._replace(group=None) for each in whole]
  return (*found, *_find(suspect, groups, answers))


def _find(suspect, groups, answers) -> list[Shared]:
  rows = np.flatnonzero(suspect)
  if len(rows) < LEAST_SUSPECTS:
    return []
  rows = rows[np.lexsort((rows, answers[rows], groups[rows]))]
  group, answer = groups[rows], answers[rows]
  first = np.flatnonzero(
    np.r_[True, (group[1:] != group[:-1]) | (answer[1:] != answer[:-1])]
  )
  runs = np.diff(np.r_[first, len(rows)])
  count = int(groups.max()) + 1
  most, best = np.zeros(count, np.int64), np.zeros(count, np.int64)
  np.maximum.at(most, group[first], runs)
  place = first[runs == most[group[first]]][::-1]  # of equals the first is kept
  best[group[place]] = rows[place]
  suspects = np.bincount(group, minlength=count)
  same = np.bincount(groups, answers == answers[best[groups]], count).astype(np.int64)
  sizes = np.bincount(groups, minlength=count)
  # Odds as products, so that nothing is divided by 0.
  above = most * (sizes - same) >= TIMES * same * (suspects - most)
  above &= (suspects >= LEAST_SUSPECTS) & (most >= LEAST_SHARE * suspects)
  above &= same < sizes
  return [
    Shared(
      int(g), int(best[g]), int(most[g]), int(suspects[g]), float(same[g] / sizes[g])
    )
    for g in np.flatnonzero(above)
  ]
