"""Blocks of rows in which all pairs fit in memory."""

import numpy as np
from jaxtyping import Bool, Int, UInt64

from mllm_selector_jax.selection.objective import order_rows

MOST = 8192  # rows of a block: 256 MB of similarities


def make_blocks(
  rows: Int[np.ndarray, " n"],
  groups: Int[np.ndarray, " N"],
  count: int,
  tie: UInt64[np.ndarray, " N"],
  first: Bool[np.ndarray, " N"],
  whole: bool = True,
  most: int = MOST,
) -> list[Int[np.ndarray, " _"]]:
  """These rows in blocks; inside, those of `first`, then as drawn.

  A pool of up to `most` rows is one block if `whole`. Otherwise a block is a
  group, cut in drawn order where it is larger than `most`.

  Args:
    rows: which rows.
    groups: of all rows, from 0 to count - 1.
    count: the number of groups.
    tie: a draw a row.
    first: rows that go before the others of their block.
    whole: make one block of a pool that fits, whatever its groups.
    most: rows of a block.
  """
  index = groups[rows]
  if whole and len(rows) <= most:
    index, count = np.zeros(len(rows), np.int64), 1
  order = order_rows(index, count, tie[rows], first=first[rows])
  parts = np.split(rows[order.rows], order.starts[1:-1])
  return [part[i : i + most] for part in parts for i in range(0, len(part), most)]
