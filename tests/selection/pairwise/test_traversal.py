"""Farthest-first traversal, leaders and neighbours against plain loops."""

import numpy as np
import pytest

from mllm_selector_jax.selection.pairwise import (
  farthest,
  leaders,
  neighbours,
  row_tiles,
)
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from tests.selection.pairwise.drawn_rows import cosines, draw_rows, on_devices


def traverse_plainly(exact, forced, count):
  best = np.full(len(exact), -np.inf)
  picks, before = [], []
  for number in range(min(count, len(exact))):
    pick = number if number < forced else int(best.argmin())
    picks.append(pick)
    before.append(-np.inf if number < forced else best[pick])
    best = np.maximum(best, exact[pick])
    best[picks] = np.inf
  return picks, before


@pytest.fixture
def small_tiles(monkeypatch):
  monkeypatch.setattr(row_tiles, "SIZE", 32)


@pytest.mark.parametrize("batch", [(8192, 256), (40, 16), (3, 2), (1, 1)])
@pytest.mark.parametrize("forced", [0, 5])
def test_traversal_is_exact_whatever_the_batch(batch, forced, small_tiles):
  rows, order = draw_rows(), np.random.default_rng(2).permutation(300)
  exact = cosines(rows)[order][:, order]
  picks, before = traverse_plainly(exact, forced, 25)
  found = on_devices(
    lambda v, d: farthest.traverse(v, order, forced, 25, *batch, d), rows
  )
  for one in found:
    assert one.picks.tolist() == picks
    np.testing.assert_allclose(one.before, before, atol=2e-6)
    np.testing.assert_allclose(one.after, exact[picks].max(0), atol=2e-6)


def test_equal_rows_are_picked_last_and_once():
  rows = np.repeat(draw_rows(10), 30, 0)
  found = farthest.traverse(UnitRows(rows), np.arange(300), 0, 300, 16, 8)
  assert sorted(found.picks.tolist()) == list(range(300))
  assert (found.before[10:] > 1 - 1e-6).all() and (found.before[1:9] < 1).all()
  assert (np.diff(found.picks[10:]) > 0).all()
  none = farthest.traverse(UnitRows(rows), np.arange(0), 0, 5)
  assert len(none.picks) == len(none.after) == 0
  alone = farthest.traverse(UnitRows(rows), np.array([7]), 0, 5)
  assert alone.picks.tolist() == [0] and alone.after.tolist() == [1.0]


@pytest.mark.parametrize("most", [None, 20])
def test_followers_are_like_a_leader_before_them(most, small_tiles):
  rows, groups = draw_rows(), np.sort(np.arange(300) % 3)
  exact, fixed = cosines(rows), np.arange(300) % 50 == 1
  wanted, leading = np.zeros(300, bool), 0
  for row in range(300):
    if leading == most:
      break
    kept = [o for o in range(row) if groups[o] == groups[row] and not wanted[o]]
    wanted[row] = not fixed[row] and (exact[row, kept] > 0.9).any()
    leading += not wanted[row]
  assert 5 < wanted.sum() < 290
  found = on_devices(
    lambda v, d: leaders.find_followers(
      v, np.arange(300), groups, fixed, 0.9, most, devices=d
    ),
    rows,
  )
  for one in found:
    np.testing.assert_array_equal(one, wanted)


def test_one_row_leads_and_equal_rows_follow_it(small_tiles):
  rows = UnitRows(np.ones((100, 4), np.float32))
  for count in (0, 1, 100):
    order, zeros = np.arange(count), np.zeros(count, int)
    found = leaders.find_followers(rows, order, zeros, zeros > 0, 0.999)
    assert found.tolist() == [place > 0 for place in range(count)]


def rank_neighbours(exact, count):
  """The most similar other rows; of equal ones the first."""
  exact = exact.copy()
  np.fill_diagonal(exact, -np.inf)
  return np.argsort(-exact, axis=1, kind="stable")[:, :count]


def test_neighbours_are_the_most_similar_rows(small_tiles):
  rows, order = draw_rows(), np.random.default_rng(3).permutation(300)
  exact = cosines(rows)[order][:, order]
  found = on_devices(
    lambda v, d: neighbours.find_neighbours(v, order, 5, devices=d), rows
  )
  wanted = rank_neighbours(exact, 5)
  values = np.take_along_axis(exact, wanted, 1)
  np.testing.assert_allclose(found[0].cosine, values, atol=2e-6)
  assert (found[0].place == wanted).mean() > 0.99  # all but near-ties by rounding
  for other in found[1:]:
    np.testing.assert_array_equal(found[0].place, other.place)


def test_scikit_learn_finds_the_same_neighbours():
  neighbors = pytest.importorskip("sklearn.neighbors")
  rows = draw_rows(clusters=300)
  rows[1::29] += 0.1  # no equal rows
  x = UnitRows(rows)
  found = neighbours.find_neighbours(x, np.arange(300), 5)
  units = x.rows(slice(None))
  theirs = neighbors.NearestNeighbors(n_neighbors=6).fit(units).kneighbors(units)[1]
  np.testing.assert_array_equal(found.place, theirs[:, 1:])


def test_few_rows_have_fewer_neighbours():
  for count in (0, 1, 3):
    found = neighbours.find_neighbours(UnitRows(draw_rows()), np.arange(count), 5)
    assert found.place.shape == (count, 5)
    assert ((found.place >= 0).sum(1) == max(count - 1, 0)).all()
    assert (np.isfinite(found.cosine) == (found.place >= 0)).all()


def test_inverted_lists_find_most_neighbours_in_the_order_of_their_cosines():
  rows, order = (
    draw_rows(600, 16, clusters=20),
    np.random.default_rng(4).permutation(600),
  )
  exact = rank_neighbours(cosines(rows)[order][:, order], 5)
  found = on_devices(
    lambda v, d: neighbours.find_neighbours(
      v, order, 5, exact_rows=100, probes=8, devices=d
    ),
    rows,
  )
  shared = [len({*a} & {*b}) for a, b in zip(found[0].place, exact, strict=True)]
  assert np.mean(shared) / 5 > 0.9
  assert (np.diff(found[0].cosine, axis=1) <= 0).all()
  assert not (found[0].place == np.arange(600)[:, None]).any()
  for other in found[1:]:
    np.testing.assert_array_equal(found[0].place, other.place)
  # With every cluster as a probe, nothing is missed.
  every = neighbours.find_neighbours(UnitRows(rows), order, 5, 100, probes=600)
  all_pairs = neighbours.find_neighbours(UnitRows(rows), order, 5)
  np.testing.assert_array_equal(every.place, all_pairs.place)
