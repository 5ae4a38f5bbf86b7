"""What comes out of a selection: for every row what was decided, and why."""

import types
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mllm_selector_jax.selection.eligibility import Candidates
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.objective import Certificate
from mllm_selector_jax.selection.shared_answers import Shared
from mllm_selector_jax.selection.shares import group_means


class GroupTable(NamedTuple):
  """One entry a group.

  Attributes:
    name: what the group is called.
    size: rows that came in.
    remaining: rows that could be taken, without suspects and left-out ones.
    suspects: rows that a bound took out.
    mean: mean rank-normalised necessity of the remaining rows.
    target: target share, NaN where the strategy has none.
    quota: rows before rounding, floors and capacities, NaN as above.
    floor: rows that the group had to get, the forced ones among them.
    kept: rows that it got.
    reached: its share of the kept rows.
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
    rank: place among the kept ones, from 0; -1 for the others. Forced rows
      come first, then what floors decided, then by gain, last what fills up.
    group: of each row; `grouped` has its strata here.
    necessity: rank-normalised, in [0, 1].
    gain: what the row adds to the objective times B, or for `top` its
      necessity; NaN where the strategy has none and for rows that could not be
      taken; -inf where the target share is 0.
    threshold: the smallest gain kept for its gain; NaN where there are none,
      infinity if floors and forced rows took the whole budget.
    reason: for each row, one of `reasons.REASONS` or a plug-in's.
    table: about each group.
    certificate: that no better selection exists, for `kl`.
    warnings: what the user should know.
    spared: by reason the groups and rows that a bound left alone.
    shared: answers that most of the rows beyond a bound have.
  """

  kept: Bool[np.ndarray, " N"]
  rank: Int[np.ndarray, " N"]
  group: Int[np.ndarray, " N"]
  necessity: Float[np.ndarray, " N"]
  gain: Float[np.ndarray, " N"]
  threshold: float
  reason: np.ndarray
  table: GroupTable
  certificate: Certificate | None
  warnings: tuple[str, ...]
  spared: Mapping[str, dict[str, int]] = types.MappingProxyType({})
  shared: tuple[Shared, ...] = ()


def assemble(
  candidates: Candidates,
  groups: Groups,
  order: Int[np.ndarray, " K"],
  code: UInt8[np.ndarray, " N"],
  target: Float[np.ndarray, " G"] | None = None,
  quota: Float[np.ndarray, " G"] | None = None,
  floor: Int[np.ndarray, " G"] | None = None,
  gain: Float[np.ndarray, " N"] | None = None,
  threshold: float = np.nan,
  certificate: Certificate | None = None,
  warnings: tuple[str, ...] = (),
) -> Selection:
  """Puts a selection together.

  Args:
    candidates: from `eligibility.sort_out`.
    groups: of all rows.
    order: the kept rows by rank.
    code: the reason of each row.
    target: target shares.
    quota: real-valued quotas.
    floor: rows that each group had to get.
    gain: of each row.
    threshold: the smallest gain kept for its gain.
    certificate: of the optimum.
    warnings: texts.
  """
  rows, count = len(candidates.tie), len(groups.names)
  kept = np.zeros(rows, bool)
  kept[order] = True
  rank = np.full(rows, -1, np.int64)
  rank[order] = np.arange(len(order))

  def tally(mask):
    return np.bincount(groups.index[mask], minlength=count)

  free = candidates.remaining
  unknown = np.full(count, np.nan)
  reached = tally(kept)
  table = GroupTable(
    name=tuple(groups.names),
    size=np.bincount(groups.index, minlength=count),
    remaining=tally(free),
    suspects=tally(candidates.suspect),
    mean=group_means(candidates.necessity[free], groups.index[free], count),
    target=unknown if target is None else target,
    quota=unknown if quota is None else quota,
    floor=tally(candidates.forced) if floor is None else floor,
    kept=reached,
    reached=reached / max(len(order), 1),
  )
  return Selection(
    kept=kept,
    rank=rank,
    group=groups.index,
    necessity=candidates.necessity,
    gain=np.full(rows, np.nan) if gain is None else gain,
    threshold=threshold,
    reason=np.array(candidates.reasons, dtype=object)[code],
    table=table,
    certificate=certificate,
    warnings=tuple(text for text in warnings if text),
    spared=candidates.spared,
    shared=candidates.shared,
  )
