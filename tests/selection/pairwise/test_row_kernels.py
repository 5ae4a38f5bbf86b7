"""Tiles, sums and the exact cosines against plain numpy in float64."""

import functools

import numpy as np
import pytest

from mllm_selector_jax.selection.pairwise import all_pairs, kernels, row_tiles, sums
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from tests.selection.pairwise.drawn_rows import cosines, draw_rows, on_devices, unit


def highest(rows, mask, size, groups=None):
  pool = row_tiles.Tiles(UnitRows(rows), np.arange(len(rows)), None, groups, size)
  start = np.full(pool.size, -np.inf, np.float32)
  function = functools.partial(kernels.highest, mask=mask)
  return row_tiles.gather(start, pool, row_tiles.fold(function, start, pool, pool))


@pytest.mark.parametrize("size", [32, 512])
def test_the_highest_cosine_is_that_of_the_compared_pairs(size):
  rows = draw_rows()
  groups = np.sort(np.arange(300) % 3)
  exact, place = cosines(rows), np.arange(300)
  same = groups[:, None] == groups[None]
  masks = {
    kernels.all_rows: np.ones_like(same),
    kernels.other_rows: place[:, None] != place[None],
    kernels.own_group: same,
    kernels.earlier_rows: same & (place[:, None] > place[None]),
  }
  for mask, compared in masks.items():
    wanted = np.where(compared, exact, -np.inf).max(1)
    found = highest(rows, mask, size, groups)
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    units = found[np.isfinite(found)] * 2.0**20
    np.testing.assert_array_equal(units, np.rint(units))


def test_all_cosines_are_those_of_float64():
  rows = draw_rows()
  order = np.random.default_rng(0).permutation(300)
  found = on_devices(lambda v, d: all_pairs.compare_all(v, order, d), rows)
  wanted = np.rint(cosines(rows)[order][:, order] * 2.0**20)
  assert np.abs(found[0] - wanted).max() <= 1
  for other in found[1:]:
    np.testing.assert_array_equal(found[0], other)
  assert all_pairs.compare_all(UnitRows(rows), order[:0]).shape == (0, 0)


def gaussians(rows, groups):
  distance = np.linalg.norm(unit(rows)[:, None] - unit(rows)[None], axis=2)
  same = groups[:, None] == groups[None]
  return np.where(same, np.exp(-(distance**2) / 2), 0).sum(1)


@pytest.mark.parametrize("groups", [1, 7, 300])
def test_gaussian_sums_of_groups(groups, monkeypatch):
  monkeypatch.setattr(row_tiles, "SIZE", 32)
  rows, index = draw_rows(), np.sort(np.arange(300) % groups)
  found = on_devices(lambda v, d: sums.sum_gaussians(v, np.arange(300), index, d), rows)
  np.testing.assert_allclose(found[0], gaussians(rows, index), rtol=2e-6)
  for other in found[1:]:
    np.testing.assert_array_equal(found[0], other)
  # Sums are of integers, so neither tiles nor the order of the rows change a bit.
  shuffled = np.lexsort((np.random.default_rng(0).permutation(300), index))
  moved = sums.sum_gaussians(UnitRows(rows), shuffled, index[shuffled])
  np.testing.assert_array_equal(moved, found[0][shuffled])


def test_a_sum_may_have_more_than_31_bits():
  rows = np.repeat(np.eye(3, dtype=np.float32)[:1], 5000, 0)
  one_group = np.zeros(5000, int)
  found = sums.sum_gaussians(UnitRows(rows), np.arange(5000), one_group)
  assert set(found) == {5000.0}  # 5,000 * 2^20 units


@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one_row(count):
  rows, order, groups = draw_rows()[:count], np.arange(count), np.zeros(count, int)
  vectors = UnitRows(rows)
  assert highest(rows, kernels.other_rows, 8).tolist() == [-np.inf] * count
  assert sums.sum_gaussians(vectors, order, groups).tolist() == [1.0] * count


def test_tiles_that_do_not_fit_are_read_again(monkeypatch):
  rows = draw_rows()
  wanted = highest(rows, kernels.other_rows, 32)
  monkeypatch.setattr(row_tiles, "HELD_BYTES", 4 * 32 * 6 * 3)  # three tiles
  np.testing.assert_array_equal(highest(rows, kernels.other_rows, 32), wanted)
