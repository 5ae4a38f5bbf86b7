"""Finds rows whose answer is unlikely to a model that knows the rest of their group.

In a group that can be learned, the losses of a model that has not memorised the rows
have two modes: those of answers that follow from the other rows, and those of answers
that do not. In each group a mixture of two Gaussians separates the modes. Where a high
loss is no evidence of a wrong answer, nothing is marked: in small groups, in groups in
which the model is rarely right or only guesses the commonest answer, and for answers
that it hardly ever gives.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection import skill
from mllm_selector_jax.selection.necessity import above_bound, rank_normalise
from mllm_selector_jax.selection.two_gaussians import fit_mixtures

SURE = 0.8  # the probability of the upper component above which a row is suspect
LEAST_ROWS = 30  # rows of a group; a mixture fitted to fewer is no evidence
LEAST_RIGHT = 0.4  # the share of a group's rows that the model has to get right
# The maximum of suspect rows, as a share of their group. If the upper mode holds more,
# the modes rather separate what the model knows from what it does not know.
MAX_SUSPECT = 0.3


class Doubt(NamedTuple):
  """A model's judgement of each row's answer.

  Attributes:
    loss: higher for a less likely answer; NaN if the model did not judge the row.
    right: 1 if the model gives this answer itself, otherwise below 1; 0 if it did not
      judge the row.
  """

  loss: Float[np.ndarray, " N"]
  right: Float[np.ndarray, " N"]


class Suspects(NamedTuple):
  """Suspect rows, and what was not judged.

  Attributes:
    suspect: whether each row is suspect.
    spared: for each reason not to judge, the counts "groups" and "rows".
    judged: whether a high loss of each row is evidence; None if the rule judges all
      rows alike.
  """

  suspect: Bool[np.ndarray, " N"]
  spared: dict[str, dict[str, int]]
  judged: Bool[np.ndarray, " N"] | None = None


def find_doubted(
  doubt: Doubt,
  groups: Int[np.ndarray, " N"],
  answers: UInt64[np.ndarray, " N"] | None = None,
  least_right: float = LEAST_RIGHT,
) -> Suspects:
  """Finds rows in the upper mode of their group's loss that the model gets wrong.

  At most a share `MAX_SUSPECT` of a group is suspect: the rows with the highest loss.

  Args:
    doubt: the model's judgement of each row.
    groups: the group of each row, from 0.
    answers: a number that is the same for rows with the same answer; None if the
      answers are not known, so that the model's skill is not checked.
    least_right: the share of a group's rows that the model has to get right.
  """
  known, right = np.isfinite(doubt.loss), doubt.right >= 1
  count = int(groups.max(initial=-1)) + 1
  members, sizes, hits = _count(groups, known, right, count)
  small = sizes < LEAST_ROWS
  unable = ~small & (hits < least_right * sizes)
  skilled = skill.judge(right, groups, answers, known)
  guessing = ~small & ~unable & ~skilled.apart
  judged = known & ~(small | unable | guessing)[groups]
  suspect = np.zeros(len(groups), bool)
  if judged.any():
    rows = slice(None) if judged.all() else np.flatnonzero(judged)
    mixtures = fit_mixtures(doubt.loss[rows], groups[rows])
    wrong = np.flatnonzero(judged & ~right)
    suspect[wrong] = mixtures.upper(doubt.loss[wrong], groups[wrong]) > SURE
  not_given = suspect & ~skilled.gives
  suspect &= skilled.gives
  crowded = np.bincount(groups[suspect], minlength=count) > MAX_SUSPECT * sizes
  if crowded.any():
    rows = np.flatnonzero(judged & crowded[groups])
    suspect[rows] &= above_bound(
      rank_normalise(doubt.loss[rows]), groups[rows], MAX_SUSPECT
    )

  def tally(mask):
    return {"groups": int((mask & (members > 0)).sum()), "rows": int(sizes[mask].sum())}

  def tally_rows(mask):
    return {"groups": len(np.unique(groups[mask])), "rows": int(mask.sum())}

  spared = {
    f"groups of fewer than {LEAST_ROWS} rows": tally(small),
    f"groups of which less than {least_right:.0%} is known": tally(unable),
    "groups whose answers are not told apart": tally(guessing),
    "rows whose answer is hardly ever given": tally_rows(not_given),
    "rows of which nothing is known": tally_rows(~known),
  }
  return Suspects(
    suspect,
    {reason: counts for reason, counts in spared.items() if counts["rows"]},
    judged & skilled.gives,
  )


def _count(groups, known, right, count) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Counts in each group all rows, the known ones, and those known and right."""
  kind = 2 * groups.astype(np.int64 if count > 1 << 29 else np.int32)
  kind += known
  kind *= 2
  kind += known & right
  tally = np.bincount(kind, minlength=4 * count).reshape(count, 4)
  return tally.sum(1), tally[:, 2:].sum(1), tally[:, 3]


def draw_halves(
  tie: np.ndarray, groups: Int[np.ndarray, " N"], parts: int = 2
) -> Int[np.ndarray, " N"]:
  """Divides rows into parts at random so that every group is spread over all parts.

  Args:
    tie: a random number for each row, drawn from its content; rows of equal content
      come into the same part.
    groups: the group of each row, from 0.
    parts: the number of parts.

  Returns:
    The part of each row, from 0.
  """
  _, first, content = np.unique(tie, return_index=True, return_inverse=True)
  # One entry for each content, in drawn order, and then grouped.
  order = np.argsort(groups[first], kind="stable")
  part = np.empty(len(first), np.int64)
  part[order] = np.arange(len(first)) % parts
  return part[content]
