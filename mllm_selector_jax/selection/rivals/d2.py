"""D2 pruning: difficulty that spreads to neighbours and falls near kept rows."""

import heapq

import numpy as np

from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.limited import open_room
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, first, most_rows
from mllm_selector_jax.selection.rivals.greedy import SHOWN, draw_order, fit_in
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy

NEIGHBOURS = 5
FORWARD = 1.0  # gamma of the forward messages, which spread scores to neighbours
REVERSE = 1.0  # gamma of the reverse messages, which lower the neighbours of kept rows


def d2(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes the row of the highest score and lowers its neighbours' scores, repeatedly.

  Source: Maharana, Yadav and Bansal 2023 (arXiv:2310.07931). The score of a row is its
  difficulty plus the difficulties of its k nearest neighbours, weighted by
  exp(-gamma d). When a row is kept, exp(-gamma d) times its score is subtracted from
  the scores of its neighbours.

  What differs here: the difficulty is the normalised necessity; d is the distance of
  embeddings of length 1; k is 5 and both gammas are 1; in large pools, most but not
  all of the nearest neighbours are found (see `neighbours.find_neighbours`).
  """
  from mllm_selector_jax.selection.pairwise import neighbours  # imports jax

  candidates = sort_out(scores, groups, rng, options, bounded=False)
  candidates, room = open_room(candidates)
  vectors = scores.unit_embeddings("select.strategy d2")
  rows, _ = draw_order(candidates)
  overseer = scores.overseer
  found = neighbours.find_neighbours(vectors, rows, NEIGHBOURS, overseer=overseer)
  near = np.full((len(vectors), NEIGHBOURS), -1, np.int64)
  near[rows] = np.where(found.place < 0, -1, rows[found.place])
  apart = np.full((len(vectors), NEIGHBOURS), np.inf)
  squared = 2 - 2 * found.cosine.astype(np.float64)
  apart[rows] = np.sqrt(np.maximum(squared, 0))
  difficulty = candidates.normalised_necessity
  # A missing neighbour is at infinite distance, so its message has weight 0.
  score = difficulty + (np.exp(-FORWARD * apart) * difficulty[near]).sum(1)
  fits = fit_in(room, np.arange(len(vectors)))
  if room is not None:
    room.add(np.flatnonzero(candidates.forced))
  weight, count = np.exp(-REVERSE * apart), most_rows(budget, scores)
  with overseer.watch("rows taken") as progress:
    order, gain = _take(score, near, weight, candidates, count, fits, progress)
  return first(scores, groups, budget, candidates, order, gain=gain)


def _take(score, near, weight, candidates, count, fits, progress):
  """Orders the remaining rows; the first `count` are taken greedily.

  Args:
    score: [N] the scores after the forward messages.
    near: [N, k] the neighbours of each row; -1 for none.
    weight: [N, k] the weight of the reverse message to each neighbour.
    candidates: from `sort_out`.
    count: the number of rows to take greedily; the others follow by their scores.
    fits, progress: see `greedy.pick_lazily`.

  Returns:
    All remaining rows in order, and the score of each when it was taken.
  """
  score = score.copy()
  tie = candidates.tie
  rows = np.flatnonzero(candidates.remaining)
  forced = rows[candidates.forced[rows]]
  forced = forced[np.lexsort((forced, tie[forced]))]
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
  while heap and len(order) < count:
    negative_score, _, row = heapq.heappop(heap)
    if taken[row]:
      continue
    # Scores only fall, so a row whose score has changed goes back to its new place.
    if -score[row] != negative_score:
      heapq.heappush(heap, (-score[row], int(tie[row]), row))
    elif fits(row):
      take(row)
      if not len(order) % SHOWN:
        progress(len(order), count)
  progress(len(order), count)
  rest = rows[~taken[rows]]
  rest = rest[np.lexsort((tie[rest], -score[rest]))]
  order = np.concatenate([np.array(order, np.int64), rest])
  return order, np.where(candidates.remaining, score, np.nan)


STRATEGY = Strategy(
  d2,
  takes="the highest difficulty, spread to neighbours and lowered near kept rows",
  source="Maharana et al. 2023, arXiv:2310.07931",
  embeddings=True,
)
