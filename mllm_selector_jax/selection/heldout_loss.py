"""Rows whose answer a model finds unlikely that knows the rest of their group.

The loss of a model that has not learned the rows by heart has two humps in a group
that can be learned: answers that follow from the rest, and answers that do not. A
mixture of two Gaussians tells them apart, group by group. What says nothing is left
alone: small groups, groups in which the model knows too little for its surprise to
mean anything, or no more than which answer is the commonest, and answers that it
hardly ever gives.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection import skill
from mllm_selector_jax.selection.necessity import above_bound, rank_normalise
from mllm_selector_jax.selection.two_gaussians import upper_component

SURE = 0.8  # of belonging to the upper component
LEAST_ROWS = 30  # of a group; a mixture of fewer says nothing
LEAST_RIGHT = 0.4  # share of a group's rows that the model gets right
MOST = 0.3  # of a group; above, the humps are what it knows and what it does not


class Doubt(NamedTuple):
  """What a model says of each row.

  Attributes:
    loss: higher where the answer is less likely; NaN where nothing is known.
    right: 1 where it gives the answer itself, 0 where nothing is known.
  """

  loss: Float[np.ndarray, " N"]
  right: Float[np.ndarray, " N"]


class Suspects(NamedTuple):
  """Suspect rows, and what was left alone.

  Attributes:
    suspect: of each row.
    spared: by reason how many groups and rows were left alone.
  """

  suspect: Bool[np.ndarray, " N"]
  spared: dict[str, dict[str, int]]


def find_doubted(
  doubt: Doubt,
  groups: Int[np.ndarray, " N"],
  answers: UInt64[np.ndarray, " N"] | None = None,
  least_right: float = LEAST_RIGHT,
) -> Suspects:
  """Rows that likely belong to the upper hump of their group and are not got right.

  At most `MOST` of a group's rows, those of the highest loss.

  Args:
    doubt: of each row.
    groups: from 0.
    answers: equal where the rows' answers are; None where they are not known, so
      that only shares of rows got right count.
    least_right: share of a group's rows that the model has to get right.
  """
  known, right = np.isfinite(doubt.loss), doubt.right >= 1
  count = int(groups.max(initial=-1)) + 1
  sizes = np.bincount(groups[known], minlength=count)
  hits = np.bincount(groups[known], weights=right[known], minlength=count)
  small = sizes < LEAST_ROWS
  unable = ~small & (hits < least_right * sizes)
  skilled = skill.judge(right, groups, answers, known)
  guessing = ~small & ~unable & ~skilled.apart
  rows = np.flatnonzero(known & ~(small | unable | guessing)[groups])
  suspect, never = np.zeros(len(groups), bool), np.zeros(len(groups), bool)
  if len(rows):
    upper = upper_component(doubt.loss[rows], groups[rows])
    suspect[rows] = (upper > SURE) & ~right[rows]
    never = suspect & ~skilled.gives
    suspect &= skilled.gives
    taken = np.bincount(groups[suspect], minlength=count)
    many = rows[(taken > MOST * sizes)[groups[rows]]]
    suspect[many] &= above_bound(rank_normalise(doubt.loss[many]), groups[many], MOST)
  present = np.bincount(groups, minlength=count) > 0

  def tally(mask):
    of_rows = known & mask[groups]
    return {"groups": int((mask & present).sum()), "rows": int(of_rows.sum())}

  def tally_rows(mask):
    return {"groups": len(np.unique(groups[mask])), "rows": int(mask.sum())}

  spared = {
    f"groups of fewer than {LEAST_ROWS} rows": tally(small),
    f"groups of which less than {least_right:.0%} is known": tally(unable),
    "groups whose answers are not told apart": tally(guessing),
    "rows whose answer is hardly ever given": tally_rows(never),
    "rows of which nothing is known": tally_rows(~known),
  }
  return Suspects(
    suspect, {name: each for name, each in spared.items() if each["rows"]}
  )


def draw_halves(
  tie: np.ndarray, groups: Int[np.ndarray, " N"], parts: int = 2
) -> Int[np.ndarray, " N"]:
  """The part, from 0, of each row: each group is spread evenly over all parts.

  Args:
    tie: a draw a row by its content; rows of equal content share a part.
    groups: from 0.
    parts: how many.
  """
  _, first, of = np.unique(tie, return_index=True, return_inverse=True)
  own = groups[first]  # contents, in the order of their draws
  order = np.argsort(own, kind="stable")
  part = np.empty(len(first), np.int64)
  part[order] = np.arange(len(first)) % parts
  return part[of]
