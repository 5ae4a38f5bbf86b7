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
  limit_quotas,
  most_rows,
)
from mllm_selector_jax.selection.overseer import NOBODY, Overseer
from mllm_selector_jax.selection.pairwise.blocks import Sorted, sort_by_group
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy

TEMPERATURE = 0.1


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
  has width 1, on vectors of length 1. Density and MMD are computed from all rows of a
  cluster. If a cluster has too few rows, the others get its quota.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  vectors = scores.unit_embeddings("select.strategy coincide")
  rows = np.flatnonzero(candidates.remaining)
  clusters = sort_by_group(rows, groups.index, candidates.tie, candidates.forced)
  kernels = mean_kernels(vectors, clusters, scores.overseer)
  weights = np.zeros(len(groups.names))
  indices = groups.index[clusters.rows[clusters.starts[:-1]]]
  weights[indices] = quotas(vectors, clusters, kernels)

  candidates, ranked = limit_quotas(candidates, groups, weights)
  # The maximum of rows from each cluster; rows beyond it are in drawn order.
  picks_needed = np.bincount(
    groups.index[ranked[: most_rows(budget, scores)]], minlength=len(weights)
  )
  score, target = np.full((2, len(vectors)), -np.inf)
  target[clusters.rows] = kernels
  rows = np.flatnonzero(candidates.remaining)
  left = sort_by_group(rows, groups.index, candidates.tie, candidates.forced)
  done = 0
  with scores.overseer.watch("picks of groups") as progress:
    for members in left.parts():
      forced = int(candidates.forced[members].sum())
      count = max(int(picks_needed[groups.index[members[0]]]), forced)
      picks = match_mean(vectors.rows(members), target[members], forced, count)
      score[members[picks]] = -np.arange(len(picks))
      done += len(members)
      progress(done, len(rows))
  return by_quota(scores, groups, budget, candidates, weights, score)


def mean_kernels(
  vectors: UnitRows, clusters: Sorted, overseer: Overseer = NOBODY
) -> Float[np.ndarray, " n"]:
  """Returns each row's mean exp(-|x - y|^2 / 2) with the rows of its cluster."""
  from mllm_selector_jax.selection.pairwise import sums  # imports jax

  total = sums.sum_gaussians(vectors, clusters.rows, clusters.groups, overseer=overseer)
  return total / np.diff(clusters.starts)[clusters.groups]


def quotas(
  vectors: UnitRows, clusters: Sorted, kernels: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " G"]:
  """Returns the share of each cluster of the selection.

  Args:
    vectors: the rows of the pool.
    clusters: the rows, sorted by cluster.
    kernels: from `mean_kernels`.
  """
  centres = clusters.mean_groups(vectors)
  centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-30)
  others = max(len(centres) - 1, 1)
  transfer = (centres @ centres.sum(0) - 1) / others
  sizes = np.diff(clusters.starts)
  total = np.add.reduceat(kernels, clusters.starts[:-1])
  # Without the pairs of a row with itself, whose kernel is 1; 1 for a single row.
  density = np.where(sizes > 1, (total - 1) / np.maximum(sizes - 1, 1), 1)
  power = transfer / (TEMPERATURE * density)
  return shares.normalise(np.exp(power - power.max()))


def match_mean(
  rows: Float[np.ndarray, "n D"],
  target: Float[np.ndarray, " n"],
  forced: int,
  count: int,
) -> Int[np.ndarray, " k"]:
  """Picks rows greedily so that their squared MMD from all rows stays smallest.

  Args:
    rows: the embeddings of a cluster, of length 1.
    target: from `mean_kernels`.
    forced: the number of rows, the first ones, that are picked before the others.
    count: the number of rows to pick.

  Returns:
    The places of the picks, in the order in which they were picked.
  """
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
    # For vectors of length 1, |x - y|^2 = 2 - 2xy.
    near += np.rint(np.exp(rows @ rows[pick] - 1) * 2.0**20) * 2.0**-20
  return np.array(picks, np.int64)


STRATEGY = Strategy(
  coincide,
  takes="cluster quotas by transferability and density, MMD inside",
  source="Lee et al. 2024, arXiv:2406.10995",
  embeddings=True,
  groups=True,
)
