"""Greedy picks over all pairs of a block, merged to the greedy order of the pool.

In a pool of more than one block similarity counts inside blocks alone. The
objectives of facility location and k-center then fall apart into blocks, and as
gains never increase inside a block, merging the blocks' picks by gain is the
greedy order of the whole.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.eligibility import Candidates
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.pairwise import MOST, make_blocks

# From unit embeddings, how many of its first rows are forced, and how many
# picks are wanted: the picks, their gains (never increasing), and what each row
# would add after them.
Pick = Callable[
  [Float[np.ndarray, "n D"], int, int],
  tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " n"]],
]


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
  for rows in candidate_blocks(candidates, groups, most=most):
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


def candidate_blocks(
  candidates: Candidates, groups: Groups, whole: bool = True, most: int = MOST
) -> list[Int[np.ndarray, " _"]]:
  """The remaining rows in blocks; inside, forced ones first, then as drawn."""
  return make_blocks(
    np.flatnonzero(candidates.remaining),
    groups.index,
    len(groups.names),
    candidates.tie,
    candidates.forced,
    whole,
    most,
  )
