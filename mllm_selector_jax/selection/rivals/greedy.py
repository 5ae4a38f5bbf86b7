"""Picks rows greedily in each block, and merges the picks to an order of the pool.

In a pool of more than one block, only rows of the same block are compared. The
objectives of facility location and k-center are then computed block by block. Since
gains never increase inside a block, merging the picks of all blocks by gain gives the
greedy order of the whole pool.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.eligibility import Candidates
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.pairwise import BLOCK_ROWS, make_blocks

# A function that picks rows of a block. It takes embeddings of length 1, the number of
# the first rows that are forced, and the number of rows to pick. It returns the picks,
# their gains, which never increase, and the gain of each row after them.
Pick = Callable[
  [Float[np.ndarray, "n D"], int, int],
  tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " n"]],
]


def pick_greedily(
  embeddings: Float[np.ndarray, "N D"],
  candidates: Candidates,
  groups: Groups,
  count: int,
  pick: Pick,
  block_rows: int = BLOCK_ROWS,
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " N"]]:
  """Orders the remaining rows greedily.

  Args:
    embeddings: vectors of length 1, of all rows.
    candidates: from `sort_out`.
    groups: the groups of all rows.
    count: the number of rows, the first ones, that are picked greedily.
    pick: picks the rows of one block.
    block_rows: the maximum of rows in a block.

  Returns:
    All remaining rows in order, and the gain of every row, NaN for those that do not
    remain.
  """
  gain = np.full(len(candidates.tie), np.nan)
  place = np.zeros(len(candidates.tie), np.int64)
  for rows in candidate_blocks(candidates, groups, block_rows=block_rows):
    forced = int(candidates.forced[rows].sum())
    picks, gains, after = pick(embeddings[rows], forced, min(count, len(rows)))
    gain[rows] = after
    gain[rows[picks]] = np.minimum.accumulate(gains)
    place[rows] = len(rows)
    place[rows[picks]] = np.arange(len(picks))
  rows = np.flatnonzero(candidates.remaining)
  # Rows of equal gain stay in the order in which they were picked in their block.
  order = np.lexsort((candidates.tie[rows], place[rows], -gain[rows]))
  return rows[order], gain


def candidate_blocks(
  candidates: Candidates,
  groups: Groups,
  join_small: bool = True,
  block_rows: int = BLOCK_ROWS,
) -> list[Int[np.ndarray, " _"]]:
  """Divides the remaining rows into blocks, in which forced rows come first.

  `join_small` and `block_rows` are as for `pairwise.make_blocks`.
  """
  return make_blocks(
    np.flatnonzero(candidates.remaining),
    groups.index,
    len(groups.names),
    candidates.tie,
    candidates.forced,
    join_small,
    block_rows,
  )
