"""COINCIDE-style: quotas by transferability and density, MMD inside clusters."""

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection import shares
from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import (
  Budget,
  by_quota,
  most_rows,
  quota_order,
)
from mllm_selector_jax.selection.pairwise import MOST
from mllm_selector_jax.selection.rivals.greedy import candidate_blocks
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy

TEMPERATURE = 0.1
CHUNK = 1024


def coincide(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Clusters by exp(transferability / (tau density)), then greedy MMD.

  Lee, Li and Hwang 2024 (arXiv:2406.10995). Transferability is the mean cosine of
  a cluster's centroid with the others', density the mean Gaussian kernel of its
  pairs, tau 0.1; inside, rows whose kernel mean stays nearest to the cluster's.
  What differs: one embedding of the seed model instead of five layers of a small
  one, the groups instead of 10,000 spherical clusters, a kernel of width 1 on unit
  vectors; of a cluster above `pairwise.MOST` rows that many, as drawn, stand for all
  in density and kernel mean. A cluster that runs out leaves its rows to the others.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  embeddings = scores.unit_embeddings("select.strategy coincide")
  count = len(groups.names)
  every = candidate_blocks(candidates, groups, whole=False, most=len(embeddings))
  clusters = {int(groups.index[rows[0]]): rows for rows in every if len(rows)}
  weights = np.zeros(count)
  names = np.array(sorted(clusters))
  weights[names] = quotas([embeddings[clusters[c]] for c in names])

  # How many rows each cluster gives at most; beyond them the order is as drawn.
  rows = np.flatnonzero(candidates.remaining)
  ranked = rows[quota_order(candidates, groups, weights)]
  wanted = np.bincount(
    groups.index[ranked[: most_rows(budget, scores)]], minlength=count
  )
  score = np.full(len(embeddings), -np.inf)
  for c in names:
    own = clusters[c]
    forced = int(candidates.forced[own].sum())
    picks = match_mean(embeddings[own], forced, max(int(wanted[c]), forced))
    score[own[picks]] = -np.arange(len(picks))
  return by_quota(scores, groups, budget, candidates, weights, score)


def quotas(clusters: list[Float[np.ndarray, "_ D"]]) -> Float[np.ndarray, " G"]:
  """Shares of the clusters; none is empty."""
  centres = np.stack([part.mean(0, dtype=np.float64) for part in clusters])
  centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-30)
  others = max(len(clusters) - 1, 1)
  transfer = (centres @ centres.sum(0) - 1) / others
  density = np.array([mean_kernel(part[:MOST]) for part in clusters])
  power = transfer / (TEMPERATURE * density)
  return shares.normalise(np.exp(power - power.max()))


def mean_kernel(rows: Float[np.ndarray, "n D"]) -> float:
  """Mean of exp(-|x - y|^2 / 2) over pairs of different rows; 1 for one row."""
  count = len(rows)
  if count < 2:
    return 1.0
  total = sum(
    float(_kernel(rows[i : i + CHUNK], rows).sum(dtype=np.float64))
    for i in range(0, count, CHUNK)
  )
  return (total - count) / (count * (count - 1))


def match_mean(
  rows: Float[np.ndarray, "n D"], forced: int, wanted: int
) -> Int[np.ndarray, " k"]:
  """Greedy picks that keep the squared MMD to all rows smallest."""
  target = np.concatenate(
    [
      _kernel(rows[i : i + CHUNK], rows[:MOST]).mean(1, dtype=np.float64)
      for i in range(0, len(rows), CHUNK)
    ]
  )
  near = np.zeros(len(rows))  # sum of the kernel with the picked rows
  free = np.ones(len(rows), bool)
  picks = []
  for number in range(min(wanted, len(rows))):
    # What of MMD^2 = mean K(S, S) - 2 mean K(S, C) + ... the next row decides.
    cost = np.where(free, near / (number + 1) - target, np.inf)
    pick = number if number < forced else int(cost.argmin())
    picks.append(pick)
    free[pick] = False
    near += _kernel(rows, rows[pick : pick + 1])[:, 0]
  return np.array(picks, np.int64)


def _kernel(x, y):
  return np.exp(x @ y.T - 1)  # unit vectors: |x - y|^2 = 2 - 2xy


STRATEGY = Strategy(
  coincide,
  takes="cluster quotas by transferability and density, MMD inside",
  source="Lee et al. 2024, arXiv:2406.10995",
  embeddings=True,
  groups=True,
)
