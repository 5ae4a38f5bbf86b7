"""D2 pruning: difficulty that spreads over neighbours, and falls near what is kept."""

import heapq

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, first, most_rows
from mllm_selector_jax.selection.rivals.greedy import candidate_blocks
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy

NEIGHBOURS = 5
FORWARD = 1.0  # gamma of the spreading
REVERSE = 1.0  # gamma of what a kept row takes from its neighbours
CHUNK = 1024


def d2(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """The highest score again and again, lowering its neighbours' scores.

  Maharana, Yadav and Bansal 2023 (arXiv:2310.07931). A row's score is its own
  plus its k nearest neighbours', weighted by exp(-gamma d); a kept row takes
  exp(-gamma d) times its score from each of its neighbours. What differs: the
  own score is rank-normalised necessity; d is the distance of unit embeddings;
  k is 5 and both gammas 1; neighbours of pools of more than `pairwise.MOST` rows
  are those in the group.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  embeddings = scores.unit_embeddings("select.strategy d2")
  near = np.full((len(embeddings), NEIGHBOURS), -1, np.int64)
  apart = np.full((len(embeddings), NEIGHBOURS), np.inf)
  for rows in candidate_blocks(candidates, groups):
    found, distances = find_neighbours(embeddings[rows], NEIGHBOURS)
    near[rows, : found.shape[1]] = rows[found]
    apart[rows, : found.shape[1]] = distances
  own = candidates.necessity
  score = own + (np.exp(-FORWARD * apart) * own[near]).sum(1)
  # A message of a missing neighbour weighs exp(-inf), nothing.
  order, gain = _take(
    score, near, np.exp(-REVERSE * apart), candidates, most_rows(budget, scores)
  )
  return first(scores, groups, budget, candidates, order, gain=gain)


def find_neighbours(
  embeddings: Float[np.ndarray, "n D"], count: int
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
  """The nearest other rows, the nearest first, and their distances."""
  rows = len(embeddings)
  count = min(count, rows - 1)
  near = np.empty((rows, count), np.int64)
  distances = np.empty((rows, count))
  if count < 1:
    return near, distances
  for start in range(0, rows, CHUNK):
    product = embeddings[start : start + CHUNK] @ embeddings.T
    here = np.arange(len(product))
    product[here, start + here] = -np.inf
    found = np.argpartition(-product, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(product, found, 1).astype(np.float64)
    by = np.lexsort((found, -values))
    near[start : start + CHUNK] = np.take_along_axis(found, by, 1)
    squared = 2 - 2 * np.take_along_axis(values, by, 1)
    distances[start : start + CHUNK] = np.sqrt(np.maximum(squared, 0))
  return near, distances


def _take(score, near, weight, candidates, wanted):
  """All remaining rows in order, and their scores when taken."""
  score = score.copy()
  tie = candidates.tie
  rows = np.flatnonzero(candidates.remaining)
  forced = rows[candidates.forced[rows]]
  heap = [(-score[row], int(tie[row]), row) for row in rows.tolist()]
  heapq.heapify(heap)
  taken = np.zeros(len(score), bool)
  order = []

  def take(row):
    taken[row] = True
    order.append(row)
    for other, share in zip(near[row].tolist(), weight[row].tolist(), strict=True):
      if other >= 0 and not taken[other]:
        score[other] -= share * max(score[row], 0.0)

  for row in forced.tolist():
    take(row)
  while heap and len(order) < wanted:
    before, _, row = heapq.heappop(heap)
    if taken[row]:
      continue
    if -score[row] != before:  # scores only fall: back to its new place
      heapq.heappush(heap, (-score[row], int(tie[row]), row))
    else:
      take(row)
  rest = rows[~taken[rows]]
  rest = rest[np.lexsort((tie[rest], -score[rest]))]
  order = np.concatenate([np.array(order, np.int64), rest])
  return order, np.where(candidates.remaining, score, np.nan)


STRATEGY = Strategy(
  d2,
  takes="difficulty spread over a neighbour graph, lowered near what is kept",
  source="Maharana et al. 2023, arXiv:2310.07931",
  embeddings=True,
  groups=True,
)
