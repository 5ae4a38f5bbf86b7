"""Scales necessity to [0, 1], and finds rows whose high necessity is suspect.

A high loss means either that there is much to learn or that the answer is wrong. Which
rows are suspect is decided inside their group and never over the pool, since a single
bound for the whole pool would delete the rare groups, in which all rows are hard.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection import skill
from mllm_selector_jax.selection.sorting import chunks, float_key, sort_runs
from mllm_selector_jax.types import InputError

SMALL_GROUP = 8  # rows; in a smaller group quantiles and shares are not meaningful


def rank_normalise(
  values: Float[np.ndarray, " N"],
  seen: Bool[np.ndarray, " N"] | None = None,
  classes: Int[np.ndarray, " N"] | None = None,
) -> Float[np.ndarray, " N"]:
  """Scales ranks to [0, 1], 1 for the largest value; ties get their mean rank.

  Args:
    values: a signal, in its own units.
    seen: rows that the seed model was tuned on. Since it has memorised them, they are
      ranked among themselves.
    classes: the class of each row, such as its source, from 0. Rows are ranked inside
      their class, so that no class has higher ranks than another. None: one class.

  Returns:
    (rank - 1) / (n - 1), with ranks from 1 to n; one half if there is only one row.

  Raises:
    InputError: a value is not finite.
  """
  values = np.asarray(values, np.float64)
  infinite = np.flatnonzero(~np.isfinite(values))
  if len(infinite):
    raise InputError(
      f"The necessity of {len(infinite):,} of {len(values):,} rows is not a finite"
      f" number (the first is line {infinite[0]} of the scores); set such rows aside"
      " first."
    )
  if classes is None and (seen is None or not np.any(seen)):
    return _mean_ranks(values)
  part = np.zeros(len(values), np.int64)
  if classes is not None:
    part += 2 * classes
  if seen is not None:
    part += np.asarray(seen, bool)
  ranks = np.empty(len(values))
  order = np.argsort(part, kind="stable")
  for rows in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
    ranks[rows] = _mean_ranks(values[rows])
  return ranks


def _mean_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
  count = len(values)
  if count < 2:
    return np.full(count, 0.5)
  rows, first = sort_runs(float_key(values))
  ranks = np.empty(count)
  for part in chunks(count):
    ranks[rows[part]] = np.arange(part.start, part.stop) / (count - 1)
  tied = ~first
  tied[:-1] |= tied[1:]
  places = np.flatnonzero(tied)
  begins = np.flatnonzero(first[places])
  sizes = np.diff(np.r_[begins, len(places)])
  # The mean of the ranks from f to f + size - 1 is (2 * f + size - 1) / 2.
  mean = (2 * places[begins] + sizes - 1) / (2 * (count - 1))
  ranks[rows[places]] = np.repeat(mean, sizes)
  return ranks


def above_bound(
  normalised_necessity: Float[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  bound: float,
) -> Bool[np.ndarray, " N"]:
  """Finds rows above the upper quantile of their group.

  At most floor(bound * n) rows of a group of n are suspect. Rows within 2^-40 of the
  quantile are not, so a group of equal values has no suspect row. Groups of fewer than
  `SMALL_GROUP` rows have none either.

  Args:
    normalised_necessity: ranks in [0, 1], in which rows that the seed model was tuned
      on are comparable with the others.
    groups: the group of each row, from 0.
    bound: the top share of each group that is suspect.
  """
  suspect = np.zeros(len(groups), bool)
  if bound <= 0 or not len(groups):
    return suspect
  # Group and necessity are packed into one integer: sort is faster than argsort.
  packed = np.rint(normalised_necessity * (2.0**40 - 1)).astype(np.uint64)
  packed |= groups.astype(np.uint64) << np.uint64(40)
  ascending = np.sort(packed)
  sizes = np.bincount(groups)
  starts = np.cumsum(sizes) - sizes
  dropped = np.where(sizes >= SMALL_GROUP, (bound * sizes).astype(np.int64), 0)
  last = np.maximum(starts + sizes - 1 - dropped, 0)  # the highest not suspect
  return packed > ascending[last][groups]


def failed_where_competent(
  accuracy: Float[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  competence: float,
  asked: Bool[np.ndarray, " N"] | None = None,
  answers: UInt64[np.ndarray, " N"] | None = None,
) -> Bool[np.ndarray, " N"]:
  """Finds rows that the seed model gets wrong in groups that it mostly gets right.

  A row is right if all its supervised tokens are, which is accuracy 1. Groups in which
  the model does not distinguish the answers, and answers that it hardly ever gives,
  have no suspect rows; see `skill`.

  Args:
    accuracy: the accuracy of each row.
    groups: the group of each row, from 0.
    competence: the share of a group's rows that has to be right.
    asked: rows by which groups are judged; None for all.
    answers: a number that is the same for rows with the same answer; None if the
      answers are not known.
  """
  right = accuracy >= 1
  asked = np.ones(len(groups), bool) if asked is None else asked
  count = int(groups.max(initial=-1)) + 1
  sizes = np.bincount(groups[asked], minlength=count)
  hits = np.bincount(groups[asked], weights=right[asked], minlength=count)
  known = skill.judge(right, groups, answers, asked)
  competent = (sizes >= SMALL_GROUP) & (hits >= competence * sizes) & known.apart
  return ~right & competent[groups] & known.gives


def misaligned(visual: Float[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
  """Finds rows whose answer is less likely with their image than without it.

  Args:
    visual: the loss without the image minus the loss with it; NaN without an image.
  """
  return np.nan_to_num(visual, nan=0.0) < 0
