"""Measures of diversity against plain numpy, in any order and any block."""

import math

import numpy as np
import pytest

from mllm_selector_jax.selection import measures
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.kl import find_target
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.strategies import select
from tests.selection.pools import make_pool


def make_rows(rows=300, width=6, seed=0):
  """Unit embeddings, a few of them nearly the same, keys, and 40 kept rows."""
  rng = np.random.default_rng(seed)
  vectors = rng.normal(size=(rows, width))
  vectors[1::5] = vectors[0::5] + 0.05 * rng.normal(size=vectors[0::5].shape)
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  kept = np.zeros(rows, bool)
  kept[rng.choice(rows, 40, replace=False)] = True
  kept[:2] = True
  return vectors.astype(np.float32), kept, rng.integers(0, 2**64, rows, np.uint64)


def plain_distances(vectors, kept):
  exact = vectors.astype(np.float64)
  distance = 1 - exact @ exact[kept].T
  nearest = distance.min(1)
  nearest[kept] = 0
  return nearest


def plain_duplicates(vectors, kept, cosine):
  own = vectors[kept].astype(np.float64)
  similar = own @ own.T
  np.fill_diagonal(similar, -1)
  return float((similar.max(1) > cosine).mean())


def test_distances_are_those_of_all_pairs():
  vectors, kept, key = make_rows()
  wanted = plain_distances(vectors, kept)
  found = measures.find_nearness(UnitRows(vectors), kept, key)
  np.testing.assert_allclose(found.radius, wanted.max(), atol=1e-6)
  np.testing.assert_allclose(found.mean, wanted.mean(), atol=1e-6)
  assert found.looked_at == 300
  for cosine in (0.9, 0.99, 0.999):
    share, looked_at = measures.find_duplicates(UnitRows(vectors), kept, key, cosine)
    assert share == plain_duplicates(vectors, kept, cosine) and looked_at == kept.sum()
  assert measures.find_duplicates(UnitRows(vectors), kept, key, 0.9).share > 0


@pytest.mark.parametrize("tile", [20, 64, 300, 512])
def test_neither_blocks_nor_the_order_of_rows_change_a_measure(tile):
  vectors, kept, key = make_rows()
  order = np.random.default_rng(tile).permutation(300)
  for pairs in (10**9, 0):  # exact, and of a sample
    near = measures.find_nearness(UnitRows(vectors), kept, key, most_pairs=pairs)
    copies = measures.find_duplicates(
      UnitRows(vectors), kept, key, 0.95, most_pairs=pairs
    )
    moved = UnitRows(vectors[order]), kept[order], key[order]
    assert near == measures.find_nearness(*moved, most_pairs=pairs, tile=tile)
    assert copies == measures.find_duplicates(*moved, 0.95, most_pairs=pairs, tile=tile)


def test_a_sample_is_drawn_by_content_and_stated(monkeypatch):
  monkeypatch.setattr(measures, "LEAST_SAMPLED", 50)
  vectors, kept, key = make_rows()
  wanted = plain_distances(vectors, kept)
  found = measures.find_nearness(UnitRows(vectors), kept, key, most_pairs=100)
  assert found.looked_at == 50 and found.radius <= round(wanted.max(), 6)
  assert abs(found.mean - wanted.mean()) < 3 * wanted.std() / math.sqrt(50)
  order = np.random.default_rng(1).permutation(300)
  moved = UnitRows(vectors[order]), kept[order], key[order]
  assert found == measures.find_nearness(*moved, most_pairs=100)
  assert found != measures.find_nearness(
    UnitRows(vectors), kept, key, rng=1, most_pairs=100
  )
  everything = np.ones(300, bool)
  copies = measures.find_duplicates(
    UnitRows(vectors), everything, key, 0.99, most_pairs=100
  )
  assert copies.looked_at == 50
  assert abs(copies.share - plain_duplicates(vectors, everything, 0.99)) < 0.25


def test_progress_ends_at_the_whole():
  vectors, kept, key = make_rows()
  told = []
  measures.find_nearness(
    UnitRows(vectors), kept, key, 0, lambda *at: told.append(at), tile=16
  )
  whole = int((~kept).sum() * kept.sum())
  assert told[0] == (0, whole) and told[-1] == (whole, whole)
  assert len(told) == 1 + 3  # the beginning, and each tile of kept rows


def test_one_row_kept_and_all_kept():
  vectors, _, key = make_rows()
  one = np.zeros(300, bool)
  one[5] = True
  found = measures.find_nearness(UnitRows(vectors), one, key)
  assert found.radius == pytest.approx((1 - vectors @ vectors[5]).max(), abs=1e-6)
  assert measures.find_duplicates(UnitRows(vectors), one, key, 0.95).share == 0
  groups = Groups(np.arange(300) % 4, tuple("abcd"))
  single = measures.measure(one, groups, np.full(4, 0.25), key, UnitRows(vectors))
  assert (single.rows, single.effective_groups) == (1, 1)
  assert single.divergence == pytest.approx(math.log(4))
  every = np.ones(300, bool)
  every = measures.measure(
    every, groups, np.full(4, 0.25), key, UnitRows(vectors), 0.95
  )
  assert every.coverage_radius == every.mean_distance == every.divergence == 0
  assert every.effective_groups == pytest.approx(4) and every.duplicates > 0.3
  assert every.pool_rows_compared == every.kept_rows_compared == 300


def test_equal_rows_are_at_distance_0_and_no_direction_at_1():
  vectors = np.repeat(np.eye(4, dtype=np.float32)[:1], 10, 0)
  kept, key = np.arange(10) < 2, np.arange(10, dtype=np.uint64)
  assert measures.find_nearness(UnitRows(vectors), kept, key)[:2] == (0, 0)
  assert measures.find_duplicates(UnitRows(vectors), kept, key, 0.95).share == 1
  vectors[9] = 0
  assert measures.find_nearness(UnitRows(vectors), kept, key)[:2] == (1, 0.1)


def test_the_cosine_of_near_duplicates_is_fitted_to_the_embeddings():
  vectors, _, _ = make_rows()
  cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
  pairs = cosines[np.triu_indices(len(vectors), 1)]
  fitted = measures.find_near_cosine(UnitRows(vectors))
  assert fitted == pytest.approx(1 - measures.NEAR * (1 - pairs.mean()), abs=2e-6)
  # A common direction makes all cosines high, and the threshold with them.
  narrow = vectors + 5 * np.eye(vectors.shape[1], dtype=np.float32)[0]
  narrow /= np.linalg.norm(narrow, axis=1, keepdims=True)
  near = measures.find_near_cosine(UnitRows(narrow))
  assert near > 0.99
  kept, key = np.arange(300) % 2 == 0, np.arange(300, dtype=np.uint64)
  assert measures.find_duplicates(UnitRows(narrow), kept, key, 0.95).share > 0.9
  assert measures.find_duplicates(UnitRows(narrow), kept, key, near).share < 0.5
  equal = np.repeat(vectors[:1], 10, 0)
  at = measures.find_near_cosine(UnitRows(equal))
  assert at == measures.find_near_cosine(UnitRows(equal[:1])) == measures.MOST_COSINE
  assert measures.find_duplicates(UnitRows(equal), kept[:10], key[:10], at).share == 1


def test_without_embeddings_there_are_no_distances():
  _, kept, key = make_rows()
  found = measures.measure(kept, Groups(np.zeros(300, int), ("a",)), np.ones(1), key)
  assert (found.divergence, found.effective_groups) == (0, 1)
  assert set(found[3:]) == {None}


def test_divergence_against_the_formula():
  shares = np.array([0.5, 0.25, 0.25, 0.0])
  target = np.array([0.25, 0.25, 0.25, 0.25])
  assert measures.divergence(shares, target) == pytest.approx(0.5 * math.log(2))
  assert measures.divergence(target, shares) is None  # beyond it
  assert measures.divergence(shares, np.full(4, np.nan)) is None
  assert measures.divergence(shares, shares) == 0
  assert measures.effective_groups(shares) == pytest.approx(2**1.5)


@pytest.mark.parametrize("target", ["tempered", "pool", "uniform"])
def test_the_target_is_the_one_of_kl(target):
  scores, groups = make_pool()
  options = SelectOptions(target=target, bound=0.3, duplicates=0.97)
  chosen = select(scores, groups, "20%", 3, options)
  for strategy in ("kl", "random"):
    options = SelectOptions(strategy, target=target, bound=0.3, duplicates=0.97)
    found = find_target(scores, groups, 3, options)
    np.testing.assert_array_equal(found, chosen.table.target)
