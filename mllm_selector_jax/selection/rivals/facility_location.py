"""Facility location: every row should have a similar kept row."""

import heapq

import numpy as np
from jaxtyping import Float

from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, first, most_rows
from mllm_selector_jax.selection.rivals.greedy import pick_greedily
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy


def facility_location(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Maximises the sum of each row's similarity to the most similar kept row, greedily.

  Sources: Nemhauser, Wolsey and Fisher 1978 (the greedy algorithm, which reaches at
  least 1 - 1/e of the optimum), Minoux 1978 (its lazy form), and Wei, Iyer and Bilmes
  2015 (for data selection). What differs here: similarity is the cosine of the seed
  model's embeddings, or 0 if it is negative, and in pools of more than
  `pairwise.BLOCK_ROWS` rows similarities between groups are 0.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  embeddings = scores.unit_embeddings("select.strategy facility_location")
  order, gain = pick_greedily(
    embeddings, candidates, groups, most_rows(budget, scores), cover_greedily
  )
  return first(scores, groups, budget, candidates, order, gain=gain)


def cover_greedily(embeddings: Float[np.ndarray, "n D"], forced: int, count: int):
  """Picks rows of one block; see `greedy.Pick`."""
  similarity = np.maximum(embeddings @ embeddings.T, 0)
  best = np.zeros(len(embeddings), np.float32)  # each row's similarity to the picks

  def add(row):
    return float(np.maximum(similarity[row] - best, 0).sum(dtype=np.float64))

  picks, gains = [], []

  def take(row, gain):
    picks.append(row)
    gains.append(gain)
    np.maximum(best, similarity[row], out=best)

  for row in range(min(forced, count)):
    take(row, np.inf)
  bounds = [(-add(row), row) for row in range(forced, len(embeddings))]
  heapq.heapify(bounds)
  while len(picks) < count:
    _, row = heapq.heappop(bounds)
    current = (-add(row), row)
    # Gains only fall, so a row that is still the first after its update is the best.
    if bounds and current > bounds[0]:
      heapq.heappush(bounds, current)
    else:
      take(row, -current[0])
  after = np.zeros(len(embeddings))
  for row in (row for _, row in bounds):
    after[row] = add(row)
  return np.array(picks, np.int64), np.array(gains), after


STRATEGY = Strategy(
  facility_location,
  takes="rows that together are most similar, by cosine, to all others",
  source="Nemhauser et al. 1978; Minoux 1978; Wei et al. 2015",
  embeddings=True,
  groups=True,
)
