"""Blocks of rows in which all pairs fit in memory, and greedy picks over them.

A pool of up to `MOST` rows is one block. In a larger one similarity counts
inside groups alone: a block is a group, cut in drawn order where it is larger.
The objectives of facility location and k-center then fall apart into blocks,
and as gains never increase inside a block, merging the blocks' picks by gain is
the greedy order of the whole.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.candidates import Candidates
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.objective import order_rows

MOST = 8192  # rows of a block: 256 MB of similarities

# From unit embeddings, how many of its first rows are forced, and how many
# picks are wanted: the picks, their gains (never increasing), and what each row
# would add after them.
Pick = Callable[
  [Float[np.ndarray, "n D"], int, int],
  tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " n"]],
]


def make_blocks(
  candidates: Candidates, groups: Groups, whole: bool = True, most: int = MOST
) -> list[Int[np.ndarray, " n"]]:
  """The remaining rows in blocks; inside, forced ones first, then as drawn.

  Args:
    candidates: from `sort_out`.
    groups: of all rows.
    whole: make one block of a pool that fits, whatever its groups.
    most: rows of a block.
  """
  rows = np.flatnonzero(candidates.remaining)
  index, count = groups.index[rows], len(groups.names)
  if whole and len(rows) <= most:
    index, count = np.zeros(len(rows), np.int64), 1
  order = order_rows(index, count, candidates.tie[rows], first=candidates.forced[rows])
  parts = np.split(rows[order.rows], order.starts[1:-1])
  return [part[i : i + most] for part in parts for i in range(0, len(part), most)]


def pick_greedily(
  embeddings: Float[np.ndarray, "N D"],
  candidates: Candidates,
  groups: Groups,
  wanted: int,
  pick: Pick,
  most: int = MOST,
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " N"]]:
  """All remaining rows in greedy order, and each one's gain.

  Args:
    embeddings: of length 1, of all rows.
    candidates: from `sort_out`.
    groups: of all rows.
    wanted: how far the order must be the greedy one.
    pick: of one block.
    most: rows of a block.
  """
  gain = np.full(len(candidates.tie), np.nan)
  place = np.zeros(len(candidates.tie), np.int64)
  for rows in make_blocks(candidates, groups, most=most):
    forced = int(candidates.forced[rows].sum())
    picks, gains, after = pick(embeddings[rows], forced, min(wanted, len(rows)))
    gain[rows] = after
    gain[rows[picks]] = np.minimum.accumulate(gains)
    place[rows] = len(rows)
    place[rows[picks]] = np.arange(len(picks))
  rows = np.flatnonzero(candidates.remaining)
  # Equal gains of one block keep its order.
  order = np.lexsort((candidates.tie[rows], place[rows], -gain[rows]))
  return rows[order], gain
