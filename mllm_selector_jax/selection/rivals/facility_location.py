"""Facility location: every row should have a similar kept row."""

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.limited import open_room
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, first, most_rows
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.rivals.greedy import (
  Fits,
  Picked,
  draw_order,
  fit_all,
  fit_in,
  order_by_gain,
  pick_lazily,
)
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy

ALL_PAIRS_ROWS = 1 << 13  # up to which all similarities are held: 256 MB
NEAREST = 64  # the rows, itself included, that may cover a row of a larger pool
UNIT = 2.0**-20  # of similarities, which are integers here


def facility_location(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Maximises the sum of each row's similarity to the most similar kept row, greedily.

  Sources: Nemhauser, Wolsey and Fisher 1978 (the greedy algorithm, which reaches at
  least 1 - 1/e of the optimum), Minoux 1978 (its lazy form), and Wei, Iyer and Bilmes
  2015 (for data selection). Similarity is the cosine of the seed model's embeddings, or
  0 if it is negative.

  In a pool of more than `ALL_PAIRS_ROWS` rows, only the `NEAREST` most similar rows
  cover a row (Lindgren, Wu and Dimakis 2016: sparsification by nearest neighbours).
  Some (1 + ln t) n / t of n rows meet the t nearest of every row. Adding them to the
  best k rows makes each row as well covered by its nearest ones as by the best rows
  alone. The greedy algorithm therefore reaches at least
  (1 - 1/e) / (1 + (1 + ln t) n / (t k)) of the optimum of all pairs. This holds for the
  true neighbours; see `neighbours.find_neighbours` for how they are found.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  candidates, room = open_room(candidates)
  vectors = scores.unit_embeddings("select.strategy facility_location")
  rows, forced = draw_order(candidates)
  fits = fit_in(room, rows, forced)
  count = most_rows(budget, scores)
  picked = cover_greedily(vectors, rows, forced, count, fits=fits)
  order, gain = order_by_gain(candidates, rows, picked)
  return first(scores, groups, budget, candidates, order, gain=gain)


def cover_greedily(
  vectors: UnitRows,
  rows: Int[np.ndarray, " n"],
  forced: int,
  count: int,
  all_pairs_rows: int = ALL_PAIRS_ROWS,
  fits: Fits = fit_all,
) -> Picked:
  """Picks rows that cover all, after `forced` ones.

  Args:
    vectors: the rows of the pool.
    rows: the rows to pick from and to cover, in drawn order.
    forced: the number of rows, the first ones, that are picked first.
    count: the number of rows to pick.
    all_pairs_rows: the maximum of rows of which each may cover every other one.
    fits: see `pick_lazily`.
  """
  few = len(rows) <= all_pairs_rows
  gains = AllPairs(vectors, rows) if few else NearPairs(vectors, rows)
  return pick_lazily(gains, forced, min(count, len(rows)), UNIT, fits)


class AllPairs:
  """The gains of rows of which each may cover every other one."""

  def __init__(self, vectors: UnitRows, rows: Int[np.ndarray, " n"]):
    from mllm_selector_jax.selection.pairwise import all_pairs  # imports jax

    self._similarity = all_pairs.compare_all(vectors, rows)
    np.maximum(self._similarity, 0, out=self._similarity)
    self._best = np.zeros(len(rows), np.int32)  # the similarity to the taken rows

  def all(self) -> Int[np.ndarray, " n"]:
    return np.array([self.one(row) for row in range(len(self._best))], np.int64)

  def one(self, row: int) -> int:
    return int(np.maximum(self._similarity[row] - self._best, 0).sum(dtype=np.int64))

  def take(self, row: int) -> None:
    np.maximum(self._best, self._similarity[row], out=self._best)


class NearPairs:
  """The gains of rows of which each covers those that have it among their nearest."""

  def __init__(self, vectors: UnitRows, rows: Int[np.ndarray, " n"]):
    from mllm_selector_jax.selection.pairwise import neighbours  # imports jax

    near = neighbours.find_neighbours(vectors, rows, NEAREST - 1)
    count = len(rows)
    # Each row covers itself, so that no row covers none.
    itself = np.arange(count, dtype=np.int32)
    useful = near.cosine > 0
    covering = np.concatenate([itself, near.place[useful]])
    covered = np.concatenate([itself, np.repeat(itself, useful.sum(1))])
    similarity = np.rint(near.cosine[useful] / UNIT).astype(np.int32)
    similarity = np.concatenate([np.full(count, round(1 / UNIT), np.int32), similarity])
    order = np.argsort(covering, kind="stable")
    self._covered, self._similarity = covered[order], similarity[order]
    self._starts = np.concatenate([[0], np.cumsum(np.bincount(covering))])
    self._best = np.zeros(count, np.int32)

  def all(self) -> Int[np.ndarray, " n"]:
    more = np.maximum(self._similarity - self._best[self._covered], 0)
    return np.add.reduceat(more, self._starts[:-1], dtype=np.int64)

  def one(self, row: int) -> int:
    here = slice(self._starts[row], self._starts[row + 1])
    more = self._similarity[here] - self._best[self._covered[here]]
    return int(np.maximum(more, 0).sum(dtype=np.int64))

  def take(self, row: int) -> None:
    here = slice(self._starts[row], self._starts[row + 1])
    covered = self._covered[here]
    self._best[covered] = np.maximum(self._best[covered], self._similarity[here])


STRATEGY = Strategy(
  facility_location,
  takes="rows that together are most similar, by cosine, to all others",
  source="Nemhauser et al. 1978; Minoux 1978; Wei et al. 2015; Lindgren et al. 2016",
  embeddings=True,
)
