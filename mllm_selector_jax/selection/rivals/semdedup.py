"""SemDeDup: what is least like another row of its cluster."""

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
  """Rows of a cluster that no earlier row of it resembles.

  Abbas et al. 2023 (arXiv:2303.09540): in each k-means cluster rows go from the
  centroid's least similar on; a row goes if its cosine with one before it is
  above 1 - epsilon. Here epsilon is whatever meets the budget: rows are ranked
  by 1 less that cosine. Clusters are the groups, cut at `pairwise.MOST` rows.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  embeddings = scores.unit_embeddings("select.strategy semdedup")
  gain = np.full(len(embeddings), np.nan)
  for rows in candidate_blocks(candidates, groups, whole=False):
    gain[rows] = novelty(embeddings[rows])
  return by_gain(scores, groups, budget, candidates, gain)


def novelty(embeddings: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
  """1 - the highest cosine with a row nearer to the outside; 2 for the outermost."""
  to_centre = embeddings @ embeddings.mean(0, dtype=np.float64).astype(np.float32)
  outwards = np.argsort(to_centre, kind="stable")
  sorted_rows = embeddings[outwards]
  found = np.empty(len(embeddings))
  for start in range(0, len(embeddings), CHUNK):
    part = sorted_rows[start : start + CHUNK]
    product = part @ sorted_rows[: start + len(part)].T
    places = np.arange(product.shape[1])
    before = places[None, :] < start + np.arange(len(part))[:, None]
    found[start : start + CHUNK] = np.where(before, product, -1.0).max(1)
  gain = np.empty(len(embeddings))
  gain[outwards] = 1 - found
  return gain


STRATEGY = Strategy(
  semdedup,
  takes="what no row nearer to the outside of its cluster resembles",
  source="Abbas et al. 2023, arXiv:2303.09540",
  embeddings=True,
  groups=True,
)
