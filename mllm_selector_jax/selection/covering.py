"""Facility location: orders rows so that those which stand first are similar to all."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.overseer import NOBODY, Overseer
from mllm_selector_jax.selection.pairwise.blocks import sort_by_group
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.rivals.greedy import Fits, Picked, fit_all, pick_lazily

ALL_PAIRS_ROWS = 1 << 13  # up to which all similarities are held: 256 MB
NEAREST = 64  # the rows, itself included, that may cover a row of a larger pool
UNIT = 2.0**-20  # of similarities, which are integers here
WEIGHT = 2.0**-10  # the unit of the weights of rows, which are integers here


def cover_greedily(
  vectors: UnitRows,
  rows: Int[np.ndarray, " n"],
  forced: int,
  count: int,
  all_pairs_rows: int = ALL_PAIRS_ROWS,
  fits: Fits = fit_all,
  weights: Int[np.ndarray, " n"] | None = None,
  overseer: Overseer = NOBODY,
  limits: tuple[np.ndarray, ...] = (),
) -> Picked:
  """Picks rows that cover all, after `forced` ones.

  Args:
    vectors: the rows of the pool.
    rows: the rows to pick from and to cover, in drawn order.
    forced: the number of rows, the first ones, that are picked first.
    count: the number of rows to pick.
    all_pairs_rows: the maximum of rows of which each may cover every other one.
    fits: see `pick_lazily`.
    weights: how much it counts that each row is covered, in multiples of `WEIGHT`; by
      default all count 1.
    overseer: watches what is not compared at once, and keeps the rows that may cover
      each row and the picks.
    limits: what decides the answers of `fits`.
  """
  unit = UNIT if weights is None else UNIT * WEIGHT
  count = min(count, len(rows))
  if len(rows) <= all_pairs_rows:
    return pick_lazily(AllPairs(vectors, rows, weights), forced, count, unit, fits)
  gains = NearPairs(vectors, rows, weights, overseer)
  keeper = overseer.keep("covering", vectors, rows, forced, count, weights, *limits)
  with overseer.watch("covering rows") as progress:
    return pick_lazily(gains, forced, count, unit, fits, progress, keeper)


def cover_groups(
  vectors: UnitRows,
  groups: Int[np.ndarray, " N"],
  tie: UInt64[np.ndarray, " N"],
  forced: Bool[np.ndarray, " N"],
  covered: Bool[np.ndarray, " N"],
  allowed: Bool[np.ndarray, " N"],
  necessity: Float[np.ndarray, " N"],
  all_pairs_rows: int = ALL_PAIRS_ROWS,
  overseer: Overseer = NOBODY,
) -> Float[np.ndarray, " N"]:
  """Orders the rows of each group by facility location, as far as it goes.

  The rows of a group that stand first maximise, greedily, the sum over the group's rows
  of the row's necessity times its cosine with the most similar of them, or 0 if it is
  negative. All rows are ordered, so that the order depends on no budget. Groups of up
  to `all_pairs_rows` rows are ordered in batches by `cover_loop.order_groups`, and
  larger ones one after the other.

  Args:
    vectors: the rows of the pool.
    groups: the group of each row.
    tie: a random number for each row; of rows of equal gain the smallest goes first.
    forced: rows that go before all others of their group.
    covered: the rows that are to be covered.
    allowed: which of these may be ordered.
    necessity: the normalised necessity of each row.
    all_pairs_rows: the maximum of rows of a group of which each may cover every other
      one; see `rivals.facility_location`.
    overseer: see `cover_greedily`.

  Returns:
    For each allowed row minus its place in its group, and -inf for all others.
  """
  score = np.full(len(groups), -np.inf)
  weights = np.maximum(np.rint(necessity / WEIGHT), 1).astype(np.int64)
  parts = sort_by_group(np.flatnonzero(covered), groups, tie, forced).parts()
  small = [rows for rows in parts if len(rows) <= all_pairs_rows]
  for rows, place in _order_small(vectors, small, weights, allowed, forced, overseer):
    score[rows] = np.where(place < 0, -np.inf, -place)
  for rows in parts:
    if len(rows) > all_pairs_rows:
      picked = cover_greedily(
        vectors,
        rows,
        int(forced[rows].sum()),
        len(rows),
        all_pairs_rows,
        allowed[rows].tolist().__getitem__,
        weights[rows],
        overseer,
        (allowed[rows],),
      )
      score[rows[picked.places]] = -np.arange(len(picked.places), dtype=np.float64)
  return score


def _order_small(
  vectors, parts, weights, allowed, forced, overseer
) -> Iterator[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
  """Yields what `cover_loop.order_groups` does, known groups first and all at once."""
  from mllm_selector_jax.selection.pairwise import cover_loop  # imports jax

  parts = sorted(parts, key=len)  # as they are yielded
  ends = np.cumsum([len(part) for part in parts])
  rows = np.concatenate([np.zeros(0, np.int64), *parts])
  keeper = overseer.keep("covered", vectors, rows, ends, weights, allowed, forced)
  known = [np.zeros(0, np.int64), *(kept["place"] for kept in keeper.read())]
  place = np.concatenate(known)
  done = len(place)
  yield rows[:done], place
  left = parts[np.searchsorted(ends, done, side="right") :]
  with overseer.watch("rows that cover groups") as progress:
    progress(done, len(rows))
    for part, place in cover_loop.order_groups(vectors, left, weights, allowed, forced):
      yield part, place
      keeper.add(place=place)
      done += len(part)
      progress(done, len(rows))


class AllPairs:
  """The gains of rows of which each may cover every other one."""

  def __init__(
    self,
    vectors: UnitRows,
    rows: Int[np.ndarray, " n"],
    weights: Int[np.ndarray, " n"] | None = None,
  ):
    from mllm_selector_jax.selection.pairwise import all_pairs  # imports jax

    self._weights = weights
    self._similarity = all_pairs.compare_all(vectors, rows)
    np.maximum(self._similarity, 0, out=self._similarity)
    self._best = np.zeros(len(rows), np.int32)  # the similarity to the taken rows

  def all(self) -> Int[np.ndarray, " n"]:
    return np.array([self.one(row) for row in range(len(self._best))], np.int64)

  def one(self, row: int) -> int:
    more = np.maximum(self._similarity[row] - self._best, 0)
    if self._weights is not None:
      more = more * self._weights
    return int(more.sum(dtype=np.int64))

  def take(self, row: int) -> None:
    np.maximum(self._best, self._similarity[row], out=self._best)


class NearPairs:
  """The gains of rows of which each covers those that have it among their nearest."""

  def __init__(
    self,
    vectors: UnitRows,
    rows: Int[np.ndarray, " n"],
    weights: Int[np.ndarray, " n"] | None = None,
    overseer: Overseer = NOBODY,
  ):
    from mllm_selector_jax.selection.pairwise import neighbours  # imports jax

    self._weights = weights
    near = neighbours.find_neighbours(vectors, rows, NEAREST - 1, overseer=overseer)
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
    if self._weights is not None:
      more = more * self._weights[self._covered]
    return np.add.reduceat(more, self._starts[:-1], dtype=np.int64)

  def one(self, row: int) -> int:
    here = slice(self._starts[row], self._starts[row + 1])
    covered = self._covered[here]
    more = np.maximum(self._similarity[here] - self._best[covered], 0)
    if self._weights is not None:
      more = more * self._weights[covered]
    return int(more.sum(dtype=np.int64))

  def take(self, row: int) -> None:
    here = slice(self._starts[row], self._starts[row + 1])
    covered = self._covered[here]
    self._best[covered] = np.maximum(self._best[covered], self._similarity[here])
