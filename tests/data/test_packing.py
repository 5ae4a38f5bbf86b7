import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm_selector_jax.data import packing
from mllm_selector_jax.types import Sample

IMAGE = 4


def make_sample(length, supervised, turns=None, image_at=None, patches=2):
  tokens = np.arange(10, 10 + length, dtype=np.int32)
  if image_at is not None:
    tokens[image_at : image_at + patches] = IMAGE
  mask = np.zeros(length, bool)
  mask[list(supervised)] = True
  turn = np.full(length, -1, np.int32)
  turn[list(supervised)] = turns if turns is not None else 0
  return Sample(tokens, mask, turn, False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=200))
def test_every_item_once_and_no_row_too_long(lengths):
  rows = packing.pack(lengths, 64)
  assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
  assert all(sum(lengths[i] for i in row) <= 64 for row in rows)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=100))
def test_best_fit_is_near_the_lower_bound(lengths):
  # Best-fit decreasing needs at most 11/9 OPT + 4 rows (Johnson 1973).
  lower = -(-sum(lengths) // 64)
  big = sum(length > 32 for length in lengths)
  optimum_at_least = max(lower, big)
  optimum_at_most = len(packing.pack(lengths, 64))
  assert optimum_at_most <= 2 * optimum_at_least + 1
  assert optimum_at_least <= optimum_at_most


def test_items_that_fill_a_row_exactly():
  assert packing.pack([3, 5, 4, 4], 8) == [[1, 0], [2, 3]]


def test_row_length_grows_only_for_longer_samples():
  assert packing.row_length_for(np.array([5, 100]), 128) == 128
  assert packing.row_length_for(np.array([5, 129]), 128) == 256


@pytest.mark.parametrize("row_length", [40, 200])
def test_steps_do_not_depend_on_the_packing(row_length):
  lengths = np.random.default_rng(0).integers(5, 40, 23)
  steps = packing.training_steps(23, lengths, 5, 2, 7, row_length)
  assert len(steps) == 10
  samples = [sorted(i for row in step for i in row) for step in steps]
  assert [len(step) for step in samples] == [5, 5, 5, 5, 3] * 2
  for epoch in (samples[:5], samples[5:]):
    assert sorted(i for step in epoch for i in step) == list(range(23))
  order = np.random.default_rng([7, 0]).permutation(23)[:5]
  assert samples[0] == sorted(order.tolist())


def test_assembled_rows_hold_every_sample_where_it_lies():
  samples = {
    0: (make_sample(6, [3, 5], [0, 1], image_at=1), np.full((4, 4, 3), 7, np.uint8)),
    1: (make_sample(4, [2, 3]), None),
    2: (make_sample(5, [4], image_at=0), np.full((4, 4, 3), 9, np.uint8)),
  }
  lengths, rows = [6, 4, 5], [[0, 1], [2]]
  shape = packing.find_shape(
    [rows], np.array([2, 2, 1]), np.array([2, 1, 1]), [True, False, True], 12, 2, 4, 4
  )
  assert (shape.rows, shape.images, shape.supervised, shape.answers) == (4, 1, 8, 3)
  batch, owners = packing.assemble(rows, samples, shape, IMAGE)
  np.testing.assert_array_equal(batch.segments[0], [1] * 6 + [2] * 4 + [0] * 2)
  np.testing.assert_array_equal(batch.positions[0, :10], [*range(6), *range(4)])
  np.testing.assert_array_equal(batch.patches[0, :4], [-1, 0, 1, -1])
  np.testing.assert_array_equal(batch.patches[1, :3], [0, 1, -1])
  assert batch.images[0, 0, 0, 0, 0] == 7 and batch.images[1, 0, 0, 0, 0] == 9
  assert not batch.segments[2:].any() and not batch.weights[2:].any()
  # A supervised token is predicted by the position before it.
  np.testing.assert_array_equal(batch.predict[0, :4], [2, 4, 7, 8])
  np.testing.assert_array_equal(batch.targets[0, :4], [13, 15, 12, 13])
  np.testing.assert_array_equal(owners.item[0, :5], [0, 0, 1, 1, -1])
  np.testing.assert_array_equal(owners.turn[0, :4], [0, 1, 0, 0])
  np.testing.assert_array_equal(batch.answers[0], [2, 4, 7])
  np.testing.assert_array_equal(owners.answer_item[0], [0, 0, 1])
  assert batch.weights.sum() == 5 == (owners.item >= 0).sum()
  assert sum(lengths) == (batch.segments > 0).sum()
