"""SemDeDup: rows that are least similar to another row of their cluster."""

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, by_gain
from mllm_selector_jax.selection.overseer import NOBODY, Overseer
from mllm_selector_jax.selection.pairwise.blocks import Sorted, sort_by_group
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy


def semdedup(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes the rows of each cluster that are least similar to an earlier row of it.

  Source: Abbas et al. 2023 (arXiv:2303.09540). There the rows of each k-means cluster
  are sorted so that the least similar to the centroid come first, and a row is dropped
  if its cosine with an earlier one is above 1 - epsilon. Here rows are ranked by
  1 - cosine, so that epsilon follows from the budget. Clusters are the groups, of any
  size.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  vectors = scores.unit_embeddings("select.strategy semdedup")
  rows = np.flatnonzero(candidates.remaining)
  ordered = sort_by_group(rows, groups.index, candidates.tie, candidates.forced)
  gain = np.full(len(vectors), np.nan)
  gain[ordered.rows] = novelty(vectors, ordered, scores.overseer)
  return by_gain(scores, groups, budget, candidates, gain)


def novelty(
  vectors: UnitRows, ordered: Sorted, overseer: Overseer = NOBODY
) -> Float[np.ndarray, " n"]:
  """Returns 1 - the highest cosine with a row that is less similar to the centroid.

  The row of each cluster that is least similar to the centroid gets 2.

  Args:
    vectors: the rows of the pool.
    ordered: the rows to compare, sorted by cluster; of rows that are equally similar to
      the centroid the first is compared with none of the others.
    overseer: watches the comparisons and keeps what they found.
  """
  from mllm_selector_jax.selection.pairwise import kernels, row_tiles  # imports jax

  outwards = np.lexsort((_to_centre(vectors, ordered), ordered.groups))
  order = ordered.rows[outwards]
  pool = row_tiles.Tiles(vectors, order, groups=ordered.groups)
  start = np.full(pool.size, -1, np.float32)

  def before(number: int) -> range:
    return range(pool.with_groups_of(number).start, number + 1)

  def function(best, left, right):
    return kernels.highest(best, left, right, mask=kernels.earlier_rows)

  keeper = overseer.keep("novelty", vectors, order, ordered.groups)
  with overseer.watch("most similar rows", "pair") as progress:
    states = row_tiles.fold(function, start, pool, pool, before, progress, keeper)
  highest = row_tiles.gather(start, pool, states)
  gain = np.empty(len(outwards))
  gain[outwards] = 1 - highest.astype(np.float64)
  return gain


def _to_centre(vectors: UnitRows, ordered: Sorted) -> Int[np.ndarray, " n"]:
  """Returns each row's product with the mean of its cluster, in multiples of 2^-20."""
  centres = ordered.mean_groups(vectors)
  product = np.empty(len(ordered.rows))
  for here in ordered.steps():
    values = vectors.rows(ordered.rows[here])
    product[here] = np.einsum("nd,nd->n", values, centres[ordered.groups[here]])
  return np.rint(product * 2.0**20).astype(np.int64)


STRATEGY = Strategy(
  semdedup,
  takes="rows least similar to any row farther from the centre of their cluster",
  source="Abbas et al. 2023, arXiv:2303.09540",
  embeddings=True,
  groups=True,
)
