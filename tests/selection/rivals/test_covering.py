"""Facility location by nearest rows against a plain greedy, and against all pairs."""

import numpy as np
import pytest

from mllm_selector_jax.selection import covering
from mllm_selector_jax.selection.covering import cover_greedily
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from tests.selection.pairwise.drawn_rows import cosines, draw_rows

UNITS = 2**20


def cover_plainly(similarity, forced, count):
  """Similarity in units; of equal gains the first."""
  best = np.zeros(len(similarity), np.int64)
  picks, gains = [], []
  for number in range(count):
    gain = np.maximum(similarity - best[None], 0).sum(1)
    gain[picks] = -1
    pick = number if number < forced else int(gain.argmax())
    picks.append(pick)
    gains.append(np.inf if number < forced else gain[pick] / UNITS)
    best = np.maximum(best, similarity[pick])
  return picks, gains, np.maximum(similarity - best[None], 0).sum(1) / UNITS


def pairs(rows, nearest=None):
  """Similarities in units [covering, covered]; 0 but for the nearest rows."""
  exact = cosines(rows)
  similarity = np.rint(np.maximum(exact, 0) * UNITS).astype(np.int64)
  if nearest:
    np.fill_diagonal(exact, 2)
    near = np.argsort(-exact, axis=1, kind="stable")[:, :nearest]
    mask = np.zeros_like(similarity, bool)
    np.put_along_axis(mask, near, True, 1)
    similarity = np.where(mask.T, similarity, 0)
  return similarity


@pytest.mark.parametrize("nearest", [None, 16])
@pytest.mark.parametrize("forced", [0, 7])
def test_picks_are_those_of_a_plain_greedy(nearest, forced, monkeypatch):
  monkeypatch.setattr(covering, "NEAREST", 16)
  rows = draw_rows(200, 8, seed=4, clusters=200)
  rows[1::29] += 0.3  # no equal rows
  picks, gains, after = cover_plainly(pairs(rows, nearest), forced, 40)
  limit = 0 if nearest else 200
  found = cover_greedily(UnitRows(rows), np.arange(200), forced, 40, limit)
  assert found.places.tolist() == picks
  np.testing.assert_allclose(found.gains, gains, atol=1e-4)
  np.testing.assert_allclose(found.after, after, atol=1e-4)


def test_nearest_rows_cover_nearly_as_well_as_all(monkeypatch):
  monkeypatch.setattr(covering, "NEAREST", 32)
  rows = draw_rows(1000, 16, clusters=60)
  similarity, vectors = pairs(rows), UnitRows(rows)
  for count in (50, 100, 300):
    exact = cover_greedily(vectors, np.arange(1000), 0, count)
    near = cover_greedily(vectors, np.arange(1000), 0, count, all_pairs_rows=0)
    value, other = (
      similarity[one.places].max(0).sum() / UNITS for one in (exact, near)
    )
    assert value == pytest.approx(exact.gains.sum(), rel=1e-6)
    bound = (1 - 1 / np.e) / (1 + (1 + np.log(32)) * 1000 / (32 * count))
    assert other >= bound * value
    assert other >= 0.98 * value


@pytest.mark.parametrize("limit", [0, 10])
def test_few_rows_and_equal_rows(limit):
  for count in (1, 4):
    vectors = UnitRows(np.ones((count, 3), np.float32))
    found = cover_greedily(vectors, np.arange(count), 0, count, limit)
    assert found.places.tolist() == list(range(count))
    assert found.gains.tolist() == [count, *[0] * (count - 1)]
