"""Sorts rows by group, in drawn order, and divides them into blocks."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.objective import order_rows
from mllm_selector_jax.selection.pairwise.unit_rows import STEP, UnitRows

BLOCK_ROWS = 8192  # the maximum of rows in a block: 256 MB of similarities


class Sorted(NamedTuple):
  """Rows sorted by group.

  Attributes:
    rows: their numbers.
    groups: the number of each row's group among those that have rows, ascending.
    starts: the place of each group's first row, and the number of rows.
  """

  rows: Int[np.ndarray, " n"]
  groups: Int[np.ndarray, " n"]
  starts: Int[np.ndarray, " G1"]

  def parts(self) -> list[Int[np.ndarray, " _"]]:
    """Returns the rows of each group."""
    return np.split(self.rows, self.starts[1:-1]) if len(self.rows) else []

  def steps(self) -> Iterator[slice]:
    """Yields the places of some rows at a time."""
    yield from (slice(s, s + STEP) for s in range(0, len(self.rows), STEP))

  def mean_groups(self, vectors: UnitRows) -> Float[np.ndarray, "G D"]:
    """Returns the mean of each group's rows, in float64."""
    sums = np.zeros((len(self.starts) - 1, vectors.shape[1]))
    for here in self.steps():
      groups = self.groups[here]
      values = vectors.rows(self.rows[here])
      begins = np.flatnonzero(np.diff(groups, prepend=-1))
      sums[groups[begins]] += np.add.reduceat(values, begins, 0, dtype=np.float64)
    return sums / np.diff(self.starts)[:, None]


def sort_by_group(
  rows: Int[np.ndarray, " n"],
  groups: Int[np.ndarray, " N"],
  tie: UInt64[np.ndarray, " N"],
  first: Bool[np.ndarray, " N"] | None = None,
) -> Sorted:
  """Sorts rows by group; inside, rows of `first` stand before the others, as drawn.

  Args:
    rows: the rows to sort.
    groups: the group of every row of the pool, from 0.
    tie: a random number for each row of the pool, which gives the drawn order.
    first: for each row of the pool, whether it goes before the others of its group; by
      default none does.
  """
  count = int(groups.max(initial=-1)) + 1
  early = None if first is None else first[rows]
  order = order_rows(groups[rows], count, tie[rows], first=early)
  begins = np.unique(order.starts)
  sizes = np.diff(begins)
  return Sorted(rows[order.rows], np.repeat(np.arange(len(sizes)), sizes), begins)


def make_blocks(
  rows: Int[np.ndarray, " n"],
  groups: Int[np.ndarray, " N"],
  tie: UInt64[np.ndarray, " N"],
  block_rows: int = BLOCK_ROWS,
) -> list[Int[np.ndarray, " _"]]:
  """Divides rows into their groups, and larger groups into blocks, in drawn order.

  Args:
    rows, groups, tie: as for `sort_by_group`.
    block_rows: the maximum of rows in a block.

  Returns:
    The row numbers of each block.
  """
  return [
    part[start : start + block_rows]
    for part in sort_by_group(rows, groups, tie).parts()
    for start in range(0, len(part), block_rows)
  ]
