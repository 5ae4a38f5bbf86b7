"""Rows spread over shards: against all ways, and what holds for every pool."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.data.packing.shard_spreading import EMPTY, spread

contents = st.lists(
  st.tuples(st.integers(0, 40), st.integers(0, 500)), min_size=0, max_size=40
)


def sum_shards(values, places):
  return np.append(values, 0)[places].sum(1)


def columns(rows):
  table = np.array(rows, np.int64).reshape(-1, 2)
  return table[:, 0], table[:, 1]


@given(contents, st.integers(1, 9))
def test_no_row_is_lost_and_shards_have_equal_places(rows, shards):
  tiles, supervised = columns(rows)
  places = spread(tiles, supervised, shards)
  assert places.shape == (shards, -(-len(rows) // shards))
  assert sorted(places[places != EMPTY].tolist()) == list(range(len(rows)))
  for shard in places.tolist():
    held = [row for row in shard if row != EMPTY]
    assert shard == sorted(held) + [EMPTY] * (len(shard) - len(held))
  assert (places == spread(tiles, supervised, shards)).all()


@given(contents, st.integers(1, 9))
def test_no_shard_exceeds_the_mean_by_more_than_the_largest_row(rows, shards):
  """A shard with more would have a larger row than the emptiest one, to swap."""
  tiles, supervised = columns(rows)
  most = sum_shards(tiles, spread(tiles, supervised, shards)).max()
  assert most <= tiles.sum() / shards + tiles.max(initial=0)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=7), st.integers(2, 3))
def test_the_most_tiles_are_near_the_least_possible(tiles, shards):
  """All ways are tried. One swap at a time misses the best by a third at most."""
  height = -(-len(tiles) // shards)
  ways = (
    np.bincount(way, tiles, shards).max()
    for way in itertools.product(range(shards), repeat=len(tiles))
    if np.bincount(way).max() <= height
  )
  found = np.array(tiles), np.ones(len(tiles), int)
  most = sum_shards(found[0], spread(*found, shards)).max()
  least = min(ways)
  assert least <= most <= 4 / 3 * least


def test_rows_of_equal_tiles_are_spread_by_their_supervised_tokens():
  supervised = np.array([90, 80, 70, 60, 50, 40, 30, 20])
  places = spread(np.full(8, 3), supervised, 4)
  assert sum_shards(supervised, places).tolist() == [110] * 4


def test_supervised_tokens_are_levelled_without_more_tiles():
  rng = np.random.default_rng(0)
  for _ in range(20):
    tiles, supervised = rng.integers(0, 38, 45), rng.integers(20, 900, 45)
    places = spread(tiles, supervised, 8)
    assert sum_shards(tiles, places).max() <= 1.03 * tiles.sum() / 8
    assert sum_shards(supervised, places).max() <= 1.3 * supervised.sum() / 8


@pytest.mark.parametrize(("rows", "empty"), [(41, 0), (5, 3), (0, 8)])
def test_no_shard_is_empty_while_there_are_rows(rows, empty):
  """Rows that fill the shards in order would leave the last of 8 without any of 41."""
  places = spread(np.full(rows, 2), np.full(rows, 7), 8)
  assert ((places != EMPTY).sum(1) == 0).sum() == empty
