"""The result of a selection: what was decided for every row, and why."""

import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mllm_selector_jax.selection.eligibility import Candidates
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.objective import Certificate
from mllm_selector_jax.selection.shared_answers import Shared
from mllm_selector_jax.selection.shares import group_means


class GroupTable(NamedTuple):
  """Figures about the groups; every field has one entry for each group.

  Attributes:
    name: the name of the group.
    size: the number of its rows in the input.
    remaining: the number of rows that could be taken: neither suspect nor left out.
    suspects: the number of suspect rows.
    mean: the mean normalised necessity of the remaining rows.
    target: the target share; NaN if the strategy has none.
    quota: the number of rows to take before rounding, floors and capacities; NaN if
      the strategy has none.
    floor: the minimum of rows that the group had to get, including the forced ones.
    kept: the number of kept rows.
    reached: the share of the kept rows that are in the group.
  """

  name: tuple[str, ...]
  size: Int[np.ndarray, " G"]
  remaining: Int[np.ndarray, " G"]
  suspects: Int[np.ndarray, " G"]
  mean: Float[np.ndarray, " G"]
  target: Float[np.ndarray, " G"]
  quota: Float[np.ndarray, " G"]
  floor: Int[np.ndarray, " G"]
  kept: Int[np.ndarray, " G"]
  reached: Float[np.ndarray, " G"]


class Selection(NamedTuple):
  """A selection from N rows.

  Attributes:
    kept: which rows are kept.
    rank: the place among the kept rows, from 0; -1 for all others. Forced rows come
      first, then rows kept because of a floor, then the others by gain, and last the
      suspect rows that fill the budget.
    group: the group of each row; for the strategy `grouped`, its stratum.
    normalised_necessity: the ranks of the necessity, scaled to [0, 1].
    gain: for `kl`, what the row adds to the objective, times the number B of kept
      rows; for a strategy that ranks rows by a score, that score. NaN if the strategy
      has no gains and for rows that could not be taken; -inf if the target share of
      the row's group is 0.
    threshold: the smallest gain among the rows that were kept because of their gain;
      NaN if there are no gains, infinity if floors and forced rows took the whole
      budget.
    reason: for each row, a text from `reasons.REASONS` or of a plug-in.
    table: figures about each group.
    certificate: for `kl`, the proof that no better selection exists.
    warnings: messages for the user.
    spared: for each reason, how many groups and rows a bound did not judge.
    shared: answers that most of the rows beyond a bound have in common.
    judged: whether the bound could judge each row; None if it judges all alike.
    limits: how the selection keeps to the limits on values; empty without limits.
  """

  kept: Bool[np.ndarray, " N"]
  rank: Int[np.ndarray, " N"]
  group: Int[np.ndarray, " N"]
  normalised_necessity: Float[np.ndarray, " N"]
  gain: Float[np.ndarray, " N"]
  threshold: float
  reason: np.ndarray
  table: GroupTable
  certificate: Certificate | None
  warnings: tuple[str, ...]
  spared: Mapping[str, dict[str, int]] = types.MappingProxyType({})
  shared: tuple[Shared, ...] = ()
  judged: Bool[np.ndarray, " N"] | None = None
  limits: Mapping[str, Any] = types.MappingProxyType({})


def assemble(
  candidates: Candidates,
  groups: Groups,
  order: Int[np.ndarray, " K"],
  code: UInt8[np.ndarray, " N"],
  target: Float[np.ndarray, " G"] | None = None,
  means: Float[np.ndarray, " G"] | None = None,
  quota: Float[np.ndarray, " G"] | None = None,
  floor: Int[np.ndarray, " G"] | None = None,
  gain: Float[np.ndarray, " N"] | None = None,
  threshold: float = np.nan,
  certificate: Certificate | None = None,
  warnings: tuple[str, ...] = (),
) -> Selection:
  """Makes a `Selection` of what a strategy decided.

  Args:
    candidates: from `eligibility.sort_out`.
    groups: the groups of all rows.
    order: the kept rows by rank.
    code: for each row, the index of its reason in `candidates.reasons`.
    target: the target shares.
    means: the mean normalised necessity of the remaining rows; computed by default.
    quota: the number of rows of each group before rounding.
    floor: the minimum of rows that each group had to get.
    gain: the gain of each row; see `Selection`.
    threshold: the smallest gain among the rows kept because of their gain.
    certificate: the proof of optimality.
    warnings: messages for the user; empty ones are dropped.
  """
  rows, count = len(candidates.tie), len(groups.names)
  kept = np.zeros(rows, bool)
  kept[order] = True
  rank = np.full(rows, -1, np.int64)
  rank[order] = np.arange(len(order))

  def tally(which):
    return np.bincount(groups.index[which], minlength=count)

  remaining, normalised = candidates.remaining, candidates.normalised_necessity
  unknown = np.full(count, np.nan)
  kept_counts = tally(order)
  if means is None:
    means = group_means(normalised, groups.index, count, remaining)
  table = GroupTable(
    name=tuple(groups.names),
    size=np.bincount(groups.index, minlength=count),
    remaining=tally(remaining),
    suspects=tally(candidates.suspect),
    mean=means,
    target=unknown if target is None else target,
    quota=unknown if quota is None else quota,
    floor=tally(candidates.forced) if floor is None else floor,
    kept=kept_counts,
    reached=kept_counts / max(len(order), 1),
  )
  return Selection(
    kept=kept,
    rank=rank,
    group=groups.index,
    normalised_necessity=normalised,
    gain=np.full(rows, np.nan) if gain is None else gain,
    threshold=threshold,
    reason=np.array(candidates.reasons, dtype=object)[code],
    table=table,
    certificate=certificate,
    warnings=tuple(text for text in warnings if text),
    spared=candidates.spared,
    shared=candidates.shared,
    judged=candidates.judged,
  )
