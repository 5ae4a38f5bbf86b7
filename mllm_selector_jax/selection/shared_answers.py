"""Finds answers that most suspect rows have in common.

Such suspects are probably not wrong: the model does not know their class of answers.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt64

LEAST_SUSPECTS = 20  # among fewer suspects, many have the same answer by chance
LEAST_SHARE = 0.5  # the share of the suspects that have the answer
TIMES = 3  # the factor by which its odds among suspects exceed those among all rows


class Shared(NamedTuple):
  """An answer that most suspects have in common.

  Attributes:
    group: the group that was searched; None for the whole selection.
    row: a suspect row with the answer.
    suspects: the number of suspects that have the answer.
    of: the number of all suspects.
    share: the share of all rows that have the answer.
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
  """Finds answers that suspects share, over all rows and then in each group.

  There have to be at least `LEAST_SUSPECTS` suspects, a share `LEAST_SHARE` of them has
  to have the answer, and its odds among suspects have to be at least `TIMES` those
  among all rows.

  Args:
    suspect: whether each row is suspect.
    groups: the group of each row, from 0.
    answers: a number that is the same for rows with the same answer.
  """
  over_all = _find(suspect, np.zeros_like(groups), answers)
  over_all = [shared._replace(group=None) for shared in over_all]
  return (*over_all, *_find(suspect, groups, answers))


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
  longest, best = np.zeros(count, np.int64), np.zeros(count, np.int64)
  np.maximum.at(longest, group[first], runs)
  # Assigned in reverse, so that the first of several commonest answers is kept.
  place = first[runs == longest[group[first]]][::-1]
  best[group[place]] = rows[place]
  suspects = np.bincount(group, minlength=count)
  same = np.bincount(groups, answers == answers[best[groups]], count).astype(np.int64)
  sizes = np.bincount(groups, minlength=count)
  # Odds are compared as products, so that nothing is divided by 0.
  above = longest * (sizes - same) >= TIMES * same * (suspects - longest)
  above &= (suspects >= LEAST_SUSPECTS) & (longest >= LEAST_SHARE * suspects)
  above &= same < sizes
  return [
    Shared(
      int(g), int(best[g]), int(longest[g]), int(suspects[g]), float(same[g] / sizes[g])
    )
    for g in np.flatnonzero(above)
  ]
