"""COINCIDE: cluster quotas by transferability and density, greedy MMD inside."""

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
from mllm_selector_jax.selection.pairwise import BLOCK_ROWS
from mllm_selector_jax.selection.rivals.greedy import candidate_blocks
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy

TEMPERATURE = 0.1
CHUNK = 1024


def coincide(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes rows by cluster quotas, and inside a cluster by greedy minimisation of MMD.

  Source: Lee, Li and Hwang 2024 (arXiv:2406.10995). The quota of a cluster is
  proportional to exp(transferability / (tau density)), with tau 0.1. Transferability is
  the mean cosine of its centroid with the others, density the mean Gaussian kernel of
  its pairs of rows. Inside a cluster, rows are taken so that their maximum mean
  discrepancy (MMD) from the cluster stays smallest.

  What differs here: the embedding is one of the seed model, not of five layers of a
  small model; the clusters are the groups, not 10,000 spherical clusters; the kernel
  has width 1, on vectors of length 1; in a cluster of more than
  `pairwise.BLOCK_ROWS` rows, density and MMD are computed from that many rows, as
  drawn. If a cluster has too few rows, the others get its quota.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  embeddings = scores.unit_embeddings("select.strategy coincide")
  count = len(groups.names)
  blocks = candidate_blocks(
    candidates, groups, join_small=False, block_rows=len(embeddings)
  )
  clusters = {int(groups.index[rows[0]]): rows for rows in blocks if len(rows)}
  weights = np.zeros(count)
  indices = np.array(sorted(clusters))
  weights[indices] = quotas([embeddings[clusters[c]] for c in indices])

  # The maximum of rows from each cluster; rows beyond it are in drawn order.
  rows = np.flatnonzero(candidates.remaining)
  ranked = rows[quota_order(candidates, groups, weights)]
  picks_needed = np.bincount(
    groups.index[ranked[: most_rows(budget, scores)]], minlength=count
  )
  score = np.full(len(embeddings), -np.inf)
  for c in indices:
    members = clusters[c]
    forced = int(candidates.forced[members].sum())
    picks = match_mean(embeddings[members], forced, max(int(picks_needed[c]), forced))
    score[members[picks]] = -np.arange(len(picks))
  return by_quota(scores, groups, budget, candidates, weights, score)


def quotas(clusters: list[Float[np.ndarray, "_ D"]]) -> Float[np.ndarray, " G"]:
  """Returns the share of each cluster of the selection.

  Args:
    clusters: the embeddings of each cluster, none of which is empty.
  """
  centres = np.stack([part.mean(0, dtype=np.float64) for part in clusters])
  centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-30)
  others = max(len(clusters) - 1, 1)
  transfer = (centres @ centres.sum(0) - 1) / others
  density = np.array([mean_kernel(part[:BLOCK_ROWS]) for part in clusters])
  power = transfer / (TEMPERATURE * density)
  return shares.normalise(np.exp(power - power.max()))


def mean_kernel(rows: Float[np.ndarray, "n D"]) -> float:
  """Returns the mean of exp(-|x - y|^2 / 2) over pairs of rows; 1 for a single row."""
  count = len(rows)
  if count < 2:
    return 1.0
  total = sum(
    float(_kernel(rows[i : i + CHUNK], rows).sum(dtype=np.float64))
    for i in range(0, count, CHUNK)
  )
  return (total - count) / (count * (count - 1))


def match_mean(
  rows: Float[np.ndarray, "n D"], forced: int, count: int
) -> Int[np.ndarray, " k"]:
  """Picks rows greedily so that their squared MMD from all rows stays smallest.

  Args:
    rows: the embeddings of a cluster, of length 1.
    forced: the number of rows, the first ones, that are picked before the others.
    count: the number of rows to pick.

  Returns:
    The places of the picks, in the order in which they were picked.
  """
  target = np.concatenate(
    [
      _kernel(rows[i : i + CHUNK], rows[:BLOCK_ROWS]).mean(1, dtype=np.float64)
      for i in range(0, len(rows), CHUNK)
    ]
  )
  near = np.zeros(len(rows))  # the sum of each row's kernel with the picked rows
  free = np.ones(len(rows), bool)
  picks = []
  for number in range(min(count, len(rows))):
    # The terms of MMD^2 = mean K(S, S) - 2 mean K(S, C) + mean K(C, C) that depend on
    # the next row.
    cost = np.where(free, near / (number + 1) - target, np.inf)
    pick = number if number < forced else int(cost.argmin())
    picks.append(pick)
    free[pick] = False
    near += _kernel(rows, rows[pick : pick + 1])[:, 0]
  return np.array(picks, np.int64)


def _kernel(x, y):
  return np.exp(x @ y.T - 1)  # for vectors of length 1, |x - y|^2 = 2 - 2xy


STRATEGY = Strategy(
  coincide,
  takes="cluster quotas by transferability and density, MMD inside",
  source="Lee et al. 2024, arXiv:2406.10995",
  embeddings=True,
  groups=True,
)
