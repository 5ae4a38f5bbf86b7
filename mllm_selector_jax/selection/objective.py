"""The objective of `kl` and its exact maximum.

Over subsets S of B rows, our reading of a selection driven by KL divergence:

  F(S) = mean value of S - lambda * KL(shares of S || q)

with q the target shares of the groups. Taken in its group's order, the n-th row
of group c adds (times B)

  g = v_(n) + lambda * [log q_c + log B - (n log n - (n - 1) log(n - 1))]

which never increases in n, so the B largest are the maximum, floors and
capacities included. Without log B the order is the same for every B, and so a
larger budget holds a smaller one.

Sorts are numpy's: XLA's sort with a payload takes four times as long on a CPU.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.sorting import float_key, sort_rows
from mllm_selector_jax.types import InputError


class GroupOrder(NamedTuple):
  """Rows sorted by group and, inside, by the order in which they are taken.

  Attributes:
    rows: the rows in that order.
    starts: where each group begins; one more entry for the end.
    place: n, counted from 1, of each entry of `rows` in its group.
    group: of each entry of `rows`.
  """

  rows: Int[np.ndarray, " N"]
  starts: Int[np.ndarray, " G1"]
  place: Int[np.ndarray, " N"]
  group: Int[np.ndarray, " N"]


class Taken(NamedTuple):
  """The optimum as counts: the first `counts[c]` rows of each group c.

  Attributes:
    threshold: the smallest gain that was taken above the floors; infinity if
      the floors took all.
  """

  counts: Int[np.ndarray, " G"]
  threshold: float


class Certificate(NamedTuple):
  """A proof that nothing better exists: value <= optimum <= bound.

  Attributes:
    value: F of what was taken, from its definition.
    bound: the Lagrangian dual at the threshold, from the gains.
    gap: bound - value, 0 up to rounding.
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
) -> GroupOrder:
  """Sorts rows by group; inside by `first`, score (descending), tie and row."""
  leading = groups
  if first is not None and first.any():
    leading = 2 * groups.astype(np.int64) + ~first
  if score is None:
    rows = sort_rows(tie, leading)
  else:
    rows = sort_rows(~float_key(score), leading, tie)
  starts = np.zeros(count + 1, np.int64)
  np.cumsum(np.bincount(groups, minlength=count), out=starts[1:])
  sizes = np.diff(starts)
  group = np.repeat(np.arange(count), sizes)
  place = np.arange(1, len(rows) + 1) - np.repeat(starts[:-1], sizes)
  return GroupOrder(rows, starts, place, group)


def take(
  gains: Float[np.ndarray, " N"],
  order: GroupOrder,
  tie: UInt64[np.ndarray, " N"],
  budget: int,
  floors: Int[np.ndarray, " G"] | None = None,
  capacities: Int[np.ndarray, " G"] | None = None,
) -> Taken:
  """The floors, then the largest gains: the exact maximum of the objective.

  Equal gains go by `tie`, then by the row.

  Args:
    gains: from `marginal_gains.gains`, in the order's order.
    order: from `order_rows`.
    tie: a draw a row.
    budget: rows to take; fewer are taken if groups of share 0 hold the rest.
    floors: rows that each group gets at least (all that it has, if fewer).
    capacities: rows that each group gets at most.

  Raises:
    InputError: the floors are above the budget, or above a capacity.
  """
  sizes = np.diff(order.starts)
  most = sizes if capacities is None else np.minimum(sizes, capacities)
  least = np.zeros_like(sizes) if floors is None else np.minimum(floors, sizes)
  if np.any(least > most):
    group = int(np.argmax(least > most))
    raise InputError(
      f"Group {group} has a floor of {least[group]} rows above its capacity of"
      f" {most[group]}; lower the one or raise the other."
    )
  if least.sum() > budget:
    raise InputError(
      f"The groups' floors sum to {int(least.sum()):,} rows, above the budget of"
      f" {budget:,}; lower the floors or raise the budget."
    )
  free = (
    (order.place > least[order.group])
    & (order.place <= most[order.group])
    & (gains > -np.inf)
  )
  need = budget - int(least.sum())
  entries = np.flatnonzero(free)
  if need == 0 or len(entries) == 0:
    return Taken(least, math.inf)
  values = gains[entries]
  if need >= len(entries):
    chosen = entries
  else:
    edge = np.partition(values, len(values) - need)[len(values) - need]
    tied = entries[values == edge]
    rows = order.rows[tied]
    above = entries[values > edge]
    by_tie = tied[np.lexsort((rows, tie[rows]))]
    chosen = np.concatenate([above, by_tie[: need - len(above)]])
  # Counts, not rows: a group's first rows are taken even where gains are equal.
  counts = least + np.bincount(order.group[chosen], minlength=len(sizes))
  return Taken(counts, float(gains[chosen].min()))


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
  """Value and dual bound of what `take` took.

  For any multiplier t of the constraint on the number of rows, no selection of
  B rows between floors and capacities is worth more than

    t + 1/B [sum over floor rows of (g - t) + sum over others of max(g - t, 0)].

  Rows that a floor took from a group of target share 0, whose divergence is
  infinite, count with their value alone on both sides.
  """
  counts, sizes = taken.counts, np.diff(order.starts)
  budget = int(counts.sum())
  most = sizes if capacities is None else np.minimum(sizes, capacities)
  least = np.zeros_like(sizes) if floors is None else np.minimum(floors, sizes)
  if budget == 0:
    return Certificate(0.0, 0.0, 0.0)
  kept = order.place <= counts[order.group]
  used = (counts > 0) & (shares > 0)
  share = counts[used] / budget
  divergence = float(np.sum(share * np.log(share / shares[used])))
  value = float(values[kept].sum()) / budget - kl_weight * divergence

  whole = np.where(gains > -np.inf, gains + kl_weight * math.log(budget), values)
  forced = order.place <= least[order.group]
  other = ~forced & (order.place <= most[order.group]) & (gains > -np.inf)
  multiplier = taken.threshold + kl_weight * math.log(budget)
  if math.isinf(multiplier):  # the floors took all: any multiplier above the rest
    multiplier = float(whole[other].max(initial=0.0))
  bound = (
    multiplier
    + (
      float((whole[forced] - multiplier).sum())
      + float(np.maximum(whole[other] - multiplier, 0).sum())
    )
    / budget
  )
  return Certificate(value, bound, bound - value)
