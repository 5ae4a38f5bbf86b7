"""The objective of `kl` and its exact maximum.

The objective of a subset S of B rows, our reading of a selection driven by KL
divergence, is

  F(S) = mean value of S - lambda * KL(shares of S || q),

where q are the target shares of the groups. If the rows of a group are taken in a
fixed order, of values that never increase, the n-th row of group c adds to B F(S)

  g = v_(n) + lambda * [log q_c + log B - (n log n - (n - 1) log(n - 1))].

This gain never increases with n. The B rows of the largest gains are therefore the
maximum, also under floors and capacities. The term log B is the same for all rows, so
their order does not depend on B, and a larger selection contains a smaller one.

Sorting is left to numpy: XLA's sort with a payload takes four times as long on a CPU.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.sorting import chunks, float_key, sort_rows
from mllm_selector_jax.types import InputError


class GroupOrder(NamedTuple):
  """Rows sorted by group and, inside, by the order in which they are taken.

  Attributes:
    rows: the rows in that order.
    starts: the index in `rows` at which each group begins, and the end of the last.
  """

  rows: Int[np.ndarray, " N"]
  starts: Int[np.ndarray, " G1"]

  @property
  def group(self) -> Int[np.ndarray, " N"]:
    """For each entry of `rows` its group."""
    return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

  @property
  def place(self) -> Int[np.ndarray, " N"]:
    """For each entry of `rows` its place n in its group, from 1."""
    offset = np.repeat(self.starts[:-1] - 1, np.diff(self.starts))
    return np.subtract(np.arange(len(self.rows)), offset, out=offset)

  def within(
    self, first: Int[np.ndarray, " G"] | int, last: Int[np.ndarray, " G"]
  ) -> Bool[np.ndarray, " N"]:
    """Marks the entries whose place n in their group is above `first`, up to `last`."""
    sizes = np.diff(self.starts)
    edges = np.zeros(len(self.rows) + 1, np.int8)
    begins = self.starts[:-1] + np.clip(first, 0, sizes)
    ends = np.maximum(self.starts[:-1] + np.clip(last, 0, sizes), begins)
    # A group may end where the next begins, so that an index may repeat.
    filled = begins < ends
    edges[begins[filled]] += 1
    edges[ends[filled]] -= 1
    return np.cumsum(edges[:-1], dtype=np.int8).view(bool)


class Taken(NamedTuple):
  """The optimal selection: the first `counts[c]` rows of each group c.

  Attributes:
    counts: the number of rows taken from each group.
    threshold: the smallest gain among the rows taken beyond the floors; infinity if
      there are none.
  """

  counts: Int[np.ndarray, " G"]
  threshold: float

  @property
  def total(self) -> int:
    """The number of rows taken."""
    return int(self.counts.sum())


class Certificate(NamedTuple):
  """A proof that a selection is optimal: value <= optimum <= bound.

  Attributes:
    value: the objective F of the selection, computed from its definition.
    bound: the Lagrangian dual bound at the threshold, computed from the gains.
    gap: bound - value, which is 0 up to rounding.
  """

  value: float
  bound: float
  gap: float


def order_rows(
  groups: Int[np.ndarray, " N"],
  count: int,
  tie: UInt64[np.ndarray, " N"],
  score: Float[np.ndarray, " N"] | None = None,
  first: Bool[np.ndarray, " N"] | None = None,
  allowed: Bool[np.ndarray, " N"] | None = None,
) -> GroupOrder:
  """Sorts rows by group and, inside, by `first`, score, tie and row number.

  Args:
    groups: the group of each row, from 0 to count - 1.
    count: the number of groups.
    tie: a random number for each row; the smallest goes first.
    score: the highest goes first; by default rows are in drawn order.
    first: rows that go before all others of their group.
    allowed: the rows that the order holds; all by default.
  """
  if allowed is not None and not allowed.all():
    groups = np.where(allowed, groups, count)
  sizes = np.bincount(groups, minlength=count)[:count]
  leading = groups
  if first is not None and first.any():
    leading = 2 * groups.astype(np.int64) + ~first
  if score is None:
    rows = sort_rows(tie, leading)
  else:
    rows = sort_rows(~float_key(score), leading, tie)
  starts = np.concatenate([[0], np.cumsum(sizes)])
  return GroupOrder(rows[: starts[-1]], starts)


def take(
  gains: Float[np.ndarray, " N"],
  order: GroupOrder,
  tie: UInt64[np.ndarray, " M"],
  budget: int,
  floors: Int[np.ndarray, " G"] | None = None,
  capacities: Int[np.ndarray, " G"] | None = None,
) -> Taken:
  """Takes the floors and then the largest gains: the exact maximum of the objective.

  Among equal gains the row of the smallest `tie` is taken, then the smallest row.

  Args:
    gains: from `marginal_gains.gains`, aligned with `order.rows`.
    order: from `order_rows`.
    tie: a random number for each row of the pool, of which the order may hold a part.
    budget: the number of rows to take. Fewer are taken if all others are in groups of
      share 0 or above a capacity.
    floors: the minimum of rows from each group, or all its rows if it has fewer.
    capacities: the maximum of rows from each group.

  Raises:
    InputError: the floors exceed the budget, or a floor exceeds its capacity.
  """
  sizes = np.diff(order.starts)
  upper = sizes if capacities is None else np.minimum(sizes, capacities)
  lower = np.zeros_like(sizes) if floors is None else np.minimum(floors, sizes)
  if np.any(lower > upper):
    group = int(np.argmax(lower > upper))
    raise InputError(
      f"Group {group} has a floor of {lower[group]} rows above its capacity of"
      f" {upper[group]}; lower the one or raise the other."
    )
  if lower.sum() > budget:
    raise InputError(
      f"The groups' floors sum to {int(lower.sum()):,} rows, above the budget of"
      f" {budget:,}; lower the floors or raise the budget."
    )
  need = budget - int(lower.sum())
  free = order.within(lower, upper)
  free &= gains > -np.inf
  entries = int(np.count_nonzero(free))
  if need == 0 or entries == 0:
    return Taken(lower, math.inf)
  values = gains[free]
  if need >= entries:
    chosen = free
    edge = values.min()
  else:
    values.partition(entries - need)
    edge = values[entries - need]
    chosen = free & (gains > edge)
    tied = np.flatnonzero(free & (gains == edge))
    rows = order.rows[tied]
    by_tie = tied[np.lexsort((rows, tie[rows]))]
    chosen[by_tie[: need - np.count_nonzero(chosen)]] = True
  # Only counts are kept, so the first rows of a group are taken even if a later row
  # of equal gain has a smaller tie.
  total = np.concatenate([[0], np.cumsum(chosen)])
  return Taken(lower + np.diff(total[order.starts]), float(edge))


def certify(
  values: Float[np.ndarray, " N"],
  gains: Float[np.ndarray, " N"],
  order: GroupOrder,
  shares: Float[np.ndarray, " G"],
  kl_weight: float,
  taken: Taken,
  floors: Int[np.ndarray, " G"] | None = None,
  capacities: Int[np.ndarray, " G"] | None = None,
) -> Certificate:
  """Computes the objective and the dual bound of what `take` took.

  For any multiplier t of the constraint on the number of rows, no selection of B rows
  that respects floors and capacities has an objective above

    t + 1/B [sum over floor rows of (g - t) + sum over others of max(g - t, 0)].

  Rows that a floor takes from a group of target share 0, whose divergence is infinite,
  count only by their value, in the objective as in the bound.

  Args:
    values, gains, order, shares, kl_weight: as for `gains`.
    taken: from `take`.
    floors, capacities: as for `take`.
  """
  counts, sizes = taken.counts, np.diff(order.starts)
  budget = int(counts.sum())
  upper = sizes if capacities is None else np.minimum(sizes, capacities)
  lower = np.zeros_like(sizes) if floors is None else np.minimum(floors, sizes)
  if budget == 0:
    return Certificate(0.0, 0.0, 0.0)
  used = (counts > 0) & (shares > 0)
  share = counts[used] / budget
  divergence = float(np.sum(share * np.log(share / shares[used])))
  kept = order.within(0, counts)
  value = float(values[kept].sum()) / budget - kl_weight * divergence

  offset = kl_weight * math.log(budget)
  forced = order.within(0, lower)
  forced_gains = gains[forced]
  forced_gains = np.where(forced_gains > -np.inf, forced_gains + offset, values[forced])
  other = order.within(lower, upper)
  other &= gains > -np.inf
  threshold = taken.threshold
  if math.isinf(threshold):  # only floor rows: any multiplier above all other gains
    threshold = float(gains[other].max(initial=-offset))
  surplus = 0.0
  for part in chunks(len(gains)):
    surplus += float(np.maximum(gains[part][other[part]] - threshold, 0).sum())
  multiplier = threshold + offset
  bound = multiplier + (float((forced_gains - multiplier).sum()) + surplus) / budget
  return Certificate(value, bound, bound - value)
