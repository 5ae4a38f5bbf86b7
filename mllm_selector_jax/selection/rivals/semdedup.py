"""SemDeDup: rows that are least similar to another row of their cluster."""

import numpy as np
from jaxtyping import Float

from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, by_gain
from mllm_selector_jax.selection.rivals.greedy import candidate_blocks
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy

CHUNK = 1024


def semdedup(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes the rows of each cluster that are least similar to an earlier row of it.

  Source: Abbas et al. 2023 (arXiv:2303.09540). There the rows of each k-means cluster
  are sorted so that the least similar to the centroid come first, and a row is dropped
  if its cosine with an earlier one is above 1 - epsilon. Here rows are ranked by
  1 - cosine, so that epsilon follows from the budget. Clusters are the groups, cut into
  blocks of at most `pairwise.BLOCK_ROWS` rows.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  embeddings = scores.unit_embeddings("select.strategy semdedup")
  gain = np.full(len(embeddings), np.nan)
  for rows in candidate_blocks(candidates, groups, join_small=False):
    gain[rows] = novelty(embeddings[rows])
  return by_gain(scores, groups, budget, candidates, gain)


def novelty(embeddings: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
  """Returns 1 - the highest cosine with a row that is less similar to the centroid.

  The row that is least similar to the centroid gets 2.

  Args:
    embeddings: vectors of length 1, the rows of one cluster.
  """
  to_centre = embeddings @ embeddings.mean(0, dtype=np.float64).astype(np.float32)
  outwards = np.argsort(to_centre, kind="stable")
  sorted_rows = embeddings[outwards]
  highest = np.empty(len(embeddings))
  for start in range(0, len(embeddings), CHUNK):
    part = sorted_rows[start : start + CHUNK]
    product = part @ sorted_rows[: start + len(part)].T
    places = np.arange(product.shape[1])
    before = places[None, :] < start + np.arange(len(part))[:, None]
    highest[start : start + CHUNK] = np.where(before, product, -1.0).max(1)
  gain = np.empty(len(embeddings))
  gain[outwards] = 1 - highest
  return gain


STRATEGY = Strategy(
  semdedup,
  takes="rows least similar to any row farther from the centre of their cluster",
  source="Abbas et al. 2023, arXiv:2303.09540",
  embeddings=True,
  groups=True,
)
