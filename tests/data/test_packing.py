import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm_selector_jax.data.packing import row_packing


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=200))
def test_every_item_once_and_no_row_too_long(lengths):
  rows = row_packing.pack(lengths, 64)
  assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
  assert all(sum(lengths[i] for i in row) <= 64 for row in rows)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=100))
def test_best_fit_is_near_the_lower_bound(lengths):
  # Best-fit decreasing needs at most 11/9 OPT + 4 rows (Johnson 1973).
  lower = -(-sum(lengths) // 64)
  big = sum(length > 32 for length in lengths)
  optimum_at_least = max(lower, big)
  optimum_at_most = len(row_packing.pack(lengths, 64))
  assert optimum_at_most <= 2 * optimum_at_least + 1
  assert optimum_at_least <= optimum_at_most


def test_items_that_fill_a_row_exactly():
  assert row_packing.pack([3, 5, 4, 4], 8) == [[1, 0], [2, 3]]


def test_row_length_grows_only_for_longer_samples():
  assert row_packing.row_length_for(np.array([5, 100]), 128) == 128
  assert row_packing.row_length_for(np.array([5, 129]), 128) == 256


@pytest.mark.parametrize("row_length", [40, 200])
def test_steps_do_not_depend_on_the_packing(row_length):
  lengths = np.random.default_rng(0).integers(5, 40, 23)
  steps = row_packing.training_steps(23, lengths, 5, 2, 7, row_length)
  assert len(steps) == 10
  samples = [sorted(i for row in step for i in row) for step in steps]
  assert [len(step) for step in samples] == [5, 5, 5, 5, 3] * 2
  for epoch in (samples[:5], samples[5:]):
    assert sorted(i for step in epoch for i in step) == list(range(23))
  order = np.random.default_rng([7, 0]).permutation(23)[:5]
  assert samples[0] == sorted(order.tolist())


@pytest.mark.parametrize(("count", "share"), [(157, 0.7), (40, 0.0), (40, 1.0), (7, 1)])
def test_grouped_steps_have_one_modality_and_every_sample_once(count, share):
  rng = np.random.default_rng(3)
  lengths, has_image = rng.integers(5, 40, count), rng.random(count) < share
  given = count, lengths, 8, 2, 7, 64, has_image
  steps = row_packing.training_steps(*given)
  assert steps == row_packing.training_steps(*given)  # of the seed alone
  half = len(steps) // 2
  assert half == -(-count // 8)
  whole = has_image.sum() // 8 + (~has_image).sum() // 8
  orders = []
  for epoch in (steps[:half], steps[half:]):
    samples = [[i for row in step for i in row] for step in epoch]
    assert sorted(i for step in samples for i in step) == list(range(count))
    assert [len(step) for step in samples[:-1]] == [8] * (half - 1)
    # LLaVA's promise: whole steps of one kind; what is left of both is the last step
    # and, where it is enough, the first.
    kinds = [set(has_image[step].tolist()) for step in samples]
    first = half - whole - bool(count % 8)
    kinds = kinds[first : first + whole]
    assert all(len(kind) == 1 for kind in kinds) and first in (0, 1)
    orders.append([kind.pop() for kind in kinds])
  if 0 < share < 1:
    for order in orders:
      assert order not in (sorted(order), sorted(order, reverse=True))
    assert orders[0] != orders[1]
