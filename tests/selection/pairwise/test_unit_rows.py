"""Rows that are scaled when they are read, also from memory-mapped shards."""

import numpy as np
import pytest

from mllm_selector_jax.selection.pairwise import unit_rows
from mllm_selector_jax.selection.pairwise.blocks import sort_by_group
from mllm_selector_jax.selection.pairwise.unit_rows import Stacked, UnitRows
from tests.selection.pairwise.drawn_rows import draw_rows, unit


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_have_length_1(dtype, monkeypatch):
  monkeypatch.setattr(unit_rows, "STEP", 64)
  rows = draw_rows().astype(dtype)
  vectors = UnitRows(rows)
  assert vectors.shape == (300, 6) and len(vectors) == 300
  assert vectors.finite.all()
  some = np.array([7, 250, 7])
  np.testing.assert_allclose(vectors.rows(some), unit(rows)[some], atol=1e-6)
  np.testing.assert_allclose(vectors.rows(slice(None)), unit(rows), atol=1e-6)
  np.testing.assert_allclose(vectors.sum_rows(), unit(rows).sum(0), rtol=1e-5)


def test_a_row_that_is_not_finite_is_0():
  rows = draw_rows()
  rows[3, 1], rows[4], rows[5] = np.nan, 3e38, 0
  vectors = UnitRows(rows)
  assert np.flatnonzero(~vectors.finite).tolist() == [3, 4]
  assert not vectors.rows(np.array([3, 4, 5])).any()


def test_shards_give_the_rows_of_the_whole(tmp_path):
  rows = draw_rows().astype(np.float16)
  parts = np.split(rows, [0, 100, 101, 260])  # the first is empty
  for number, part in enumerate(parts):
    np.save(tmp_path / f"{number}.npy", part)
  stacked = Stacked([np.load(p, mmap_mode="r") for p in sorted(tmp_path.iterdir())])
  assert stacked.shape == rows.shape
  places = np.random.default_rng(0).integers(0, 300, 500)
  np.testing.assert_array_equal(stacked[places], rows[places])
  np.testing.assert_array_equal(stacked[90:270], rows[90:270])
  even = Stacked([rows[:9], rows[9:]], np.arange(0, 300, 2))
  np.testing.assert_array_equal(even[10:20], rows[20:40:2])
  whole, split = UnitRows(rows), UnitRows(stacked)
  np.testing.assert_array_equal(whole.rows(places), split.rows(places))


def test_means_of_groups_are_those_of_numpy(monkeypatch):
  from mllm_selector_jax.selection.pairwise import blocks

  monkeypatch.setattr(blocks, "STEP", 37)
  rows, groups = draw_rows(), np.arange(300) ** 2 % 7  # 3, 5 and 6 have no row
  some = np.flatnonzero(np.arange(300) % 4 > 0)
  tie = np.random.default_rng(0).integers(0, 2**64, 300, dtype=np.uint64)
  ordered = sort_by_group(some, groups, tie)
  present = np.unique(groups[some])
  wanted = [unit(rows)[some][groups[some] == group].mean(0) for group in present]
  np.testing.assert_allclose(ordered.mean_groups(UnitRows(rows)), wanted, atol=1e-6)
  assert [set(groups[part]) for part in ordered.parts()] == [{g} for g in present]
  assert all((np.diff(tie[part].astype(float)) > 0).all() for part in ordered.parts())
  none = sort_by_group(some[:0], groups, tie)
  assert none.parts() == [] and none.mean_groups(UnitRows(rows)).shape == (0, 6)
