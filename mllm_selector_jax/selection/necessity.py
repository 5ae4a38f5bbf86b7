"""Necessity on one scale, and the rows whose necessity is not to be believed.

A high loss is either much to learn or a wrong answer. Which rows are suspect is
decided inside their group, never over the pool: one bound for all deletes the
tail, where everything is hard.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection import skill
from mllm_selector_jax.selection.sorting import float_key, sort_rows
from mllm_selector_jax.types import InputError

SMALL_GROUP = 8  # rows; a quantile or a share of fewer says nothing


def rank_normalise(
  values: Float[np.ndarray, " N"], seen: Bool[np.ndarray, " N"] | None = None
) -> Float[np.ndarray, " N"]:
  """Ranks scaled to [0, 1], 1 for the largest; ties share their mean rank.

  Args:
    values: a signal, in its own units.
    seen: rows that the seed model was tuned on. It knows them by heart, so
      they are ranked among themselves.

  Returns:
    (rank - 1) / (n - 1); one half where there is one row only.

  Raises:
    InputError: a value is not finite.
  """
  values = np.asarray(values, np.float64)
  bad = np.flatnonzero(~np.isfinite(values))
  if len(bad):
    raise InputError(
      f"The necessity of {len(bad):,} of {len(values):,} rows is not a finite number"
      f" (the first is line {bad[0]} of the scores); set such rows aside first."
    )
  ranks = np.empty(len(values))
  seen = np.zeros(len(values), bool) if seen is None else np.asarray(seen, bool)
  for part in (~seen, seen):
    ranks[part] = _mean_ranks(values[part])
  return ranks


def _mean_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
  count = len(values)
  if count < 2:
    return np.full(count, 0.5)
  order = sort_rows(float_key(values))
  ascending = values[order]
  first = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]])
  sizes = np.diff(np.r_[first, count])
  # Twice the mean of the ranks first .. first + size - 1 is a whole number.
  mean = (2 * first + sizes - 1) / (2 * (count - 1))
  ranks = np.empty(count)
  ranks[order] = np.repeat(mean, sizes)
  return ranks


def above_bound(
  necessity: Float[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  bound: float,
) -> Bool[np.ndarray, " N"]:
  """Rows above the upper necessity quantile of their group.

  At most floor(bound * n) rows of a group of n: those tied with the quantile,
  to 2^-40, stay, so a group of equal values loses none.

  Args:
    necessity: rank-normalised, so that rows the seed was tuned on compare.
    groups: from 0.
    bound: the top share that is suspect.
  """
  suspect = np.zeros(len(groups), bool)
  if bound <= 0 or not len(groups):
    return suspect
  # Group and necessity in one number: values are sorted faster than places.
  own = np.rint(necessity * (2.0**40 - 1)).astype(np.uint64)
  own |= groups.astype(np.uint64) << np.uint64(40)
  ascending = np.sort(own)
  sizes = np.bincount(groups)
  starts = np.cumsum(sizes) - sizes
  dropped = np.where(sizes >= SMALL_GROUP, (bound * sizes).astype(np.int64), 0)
  last = np.maximum(starts + sizes - 1 - dropped, 0)  # the highest that stays
  return own > ascending[last][groups]


def failed_where_competent(
  accuracy: Float[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  competence: float,
  asked: Bool[np.ndarray, " N"] | None = None,
  answers: UInt64[np.ndarray, " N"] | None = None,
) -> Bool[np.ndarray, " N"]:
  """Rows that the seed model gets wrong in groups that it mostly gets right.

  A row is right if every supervised token is, accuracy 1. Groups whose answers it does
  not tell apart, and answers that it hardly ever gives, are left alone.

  Args:
    accuracy: of each row.
    groups: from 0.
    competence: the share of a group's rows that has to be right.
    asked: rows by which a group is judged; None for all.
    answers: equal where the rows' answers are; None where they are not known.
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
  """Rows whose answer the image makes less likely; NaN where there is no image."""
  return np.nan_to_num(visual, nan=0.0) < 0
