"""Groups ordered in one loop: against the lazy greedy of the host, and by batch."""

import jax
import numpy as np
import pytest

from mllm_selector_jax.selection.covering import cover_greedily
from mllm_selector_jax.selection.pairwise import cover_loop
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from tests.selection.pairwise.drawn_rows import draw_rows

SIZES = (1, 2, 30, 64, 65, 100, 128, 200)


def make_groups(seed):
  """Rows with equal ones among them, the rows of each group, and what they weigh."""
  count = sum(SIZES)
  rng = np.random.default_rng(seed)
  vectors = draw_rows(count, 8, seed=seed, clusters=40)
  vectors[::17] = vectors[0]
  parts = np.split(rng.permutation(count), np.cumsum(SIZES)[:-1])
  weights, allowed = rng.integers(1, 1025, count), rng.random(count) < 0.8
  forced = np.zeros(count, bool)
  for part in parts[::2]:
    forced[part[: len(part) // 9]] = True
  return UnitRows(vectors), parts, weights, allowed | forced, forced


@pytest.mark.parametrize("seed", [0, 1])
def test_groups_are_ordered_as_by_the_lazy_greedy(seed):
  vectors, parts, weights, allowed, forced = make_groups(seed)
  seen = 0
  for rows, place in cover_loop.order_groups(
    vectors, parts, weights, allowed, forced, jax.devices()[:1]
  ):
    fits = allowed[rows].tolist().__getitem__
    first = int(forced[rows].sum())
    picked = cover_greedily(
      vectors, rows, first, len(rows), fits=fits, weights=weights[rows]
    )
    wanted = np.full(len(rows), -1)
    wanted[picked.places] = np.arange(len(picked.places))
    assert place.tolist() == wanted.tolist()
    seen += len(rows)
  assert seen == sum(SIZES)


def test_the_order_does_not_depend_on_the_batch(monkeypatch):
  arguments = make_groups(2)

  def order():
    found = cover_loop.order_groups(*arguments, devices=jax.devices()[:1])
    return {int(rows[0]): place.tolist() for rows, place in found}

  together = order()
  monkeypatch.setattr(cover_loop, "HOST_BATCH_BYTES", 1)
  assert order() == together
  assert len(together) == len(SIZES)


def test_no_groups_and_groups_without_rows_to_order():
  vectors, parts, weights, allowed, forced = make_groups(3)
  none = np.zeros_like(allowed)
  assert not [*cover_loop.order_groups(vectors, [], weights, allowed, forced)]
  found = cover_loop.order_groups(vectors, parts[:3], weights, none, none)
  assert all((place == -1).all() for _, place in found)
