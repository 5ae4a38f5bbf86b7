"""Scales embeddings, and divides rows into blocks whose similarities fit in memory."""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.objective import order_rows

BLOCK_ROWS = 8192  # the maximum of rows in a block: 256 MB of similarities
STEP = 1 << 16  # the number of embeddings that are scaled at a time


def scale_rows(values: Float[np.ndarray, "N D"]) -> Bool[np.ndarray, " N"]:
  """Scales vectors to length 1, in place; those that are not finite become 0.

  Returns:
    Whether each vector was finite.
  """
  finite = np.ones(len(values), bool)
  # Scaling all rows at a time would take three times the memory.
  for start in range(0, len(values), STEP):
    part = values[start : start + STEP]
    finite[start : start + STEP] = np.isfinite(part).all(1)
    part[~finite[start : start + STEP]] = 0
    length = np.sqrt(np.sum(np.square(part, dtype=np.float64), 1, keepdims=True))
    part[:] = part / np.maximum(length, 1e-30)
  return finite


def make_blocks(
  rows: Int[np.ndarray, " n"],
  groups: Int[np.ndarray, " N"],
  count: int,
  tie: UInt64[np.ndarray, " N"],
  first: Bool[np.ndarray, " N"],
  join_small: bool = True,
  block_rows: int = BLOCK_ROWS,
) -> list[Int[np.ndarray, " _"]]:
  """Divides rows into blocks; in each, rows of `first` stand before the others.

  Each group is a block, and a group of more than `block_rows` rows is cut into several
  in drawn order. If `join_small` is set and all rows fit into one block, they form one
  block whatever their groups.

  Args:
    rows: the rows to divide.
    groups: the group of every row of the pool, from 0 to count - 1.
    count: the number of groups.
    tie: a random number for each row of the pool, which gives the drawn order.
    first: for each row of the pool, whether it goes before the others of its block.
    join_small: whether all rows form one block if they fit.
    block_rows: the maximum of rows in a block.

  Returns:
    The row numbers of each block, in drawn order.
  """
  index = groups[rows]
  if join_small and len(rows) <= block_rows:
    index, count = np.zeros(len(rows), np.int64), 1
  order = order_rows(index, count, tie[rows], first=first[rows])
  parts = np.split(rows[order.rows], order.starts[1:-1])
  return [
    part[start : start + block_rows]
    for part in parts
    for start in range(0, len(part), block_rows)
  ]
