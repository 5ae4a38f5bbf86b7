"""Near-duplicates against a plain loop."""

import numpy as np
import pytest

from mllm_selector_jax.selection.duplicates import find_duplicates
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.pairwise import row_tiles
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.strategies import select
from tests.selection.pools import make_pool


def make_rows(count=300, seed=0):
  rng = np.random.default_rng(seed)
  rows = rng.normal(size=(count, 6))
  rows[count // 2 :] = rows[: count - count // 2] + rng.normal(0, 0.1, (1, 6))
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  tie = rng.integers(0, 2**64, count, dtype=np.uint64)
  return (
    rows.astype(np.float32),
    rng.integers(0, 3, count),
    tie,
    rng.random(count) < 0.1,
  )


@pytest.mark.parametrize("size", [1024, 16])
def test_a_row_goes_if_a_kept_one_before_it_is_near(size, monkeypatch):
  monkeypatch.setattr(row_tiles, "SIZE", size)
  rows, groups, tie, first = make_rows()
  some = np.flatnonzero(np.arange(300) % 7 > 0)
  found = find_duplicates(UnitRows(rows), some, groups, tie, first, 0.9)
  expected = np.zeros(300, bool)
  for c in range(3):
    own = some[groups[some] == c]
    own = own[np.lexsort((tie[own], ~first[own]))]
    kept = []
    for row in own:
      near = any(rows[row] @ rows[other] > 0.9 for other in kept)
      if near and not first[row]:
        expected[row] = True
      else:
        kept.append(row)
  np.testing.assert_array_equal(found, expected)
  assert 10 < found.sum() < 200 and not found[first].any()


def test_nothing_is_a_duplicate_of_itself_nor_alone():
  rows, _, tie, first = make_rows(5)
  rows = UnitRows(rows)
  alone = find_duplicates(rows, np.arange(5), np.arange(5), tie, first, 0.0)
  assert not alone.any()
  none = find_duplicates(rows, np.zeros(0, int), np.zeros(5, int), tie, first, 0.5)
  assert not none.any()


def test_a_selection_holds_one_of_two_copies():
  scores, groups = make_pool(200)
  scores.embeddings[1::2] = scores.embeddings[::2]
  index = np.repeat(groups.index[::2], 2)
  options = SelectOptions(duplicates=0.9999, bound=0.0, floor=0.0)
  selection = select(scores, index, 60, 0, options)
  assert (selection.kept[::2] & selection.kept[1::2]).sum() == 0
  copies = selection.reason == "suspect: nearly the same as another row"
  assert copies.sum() == 100
