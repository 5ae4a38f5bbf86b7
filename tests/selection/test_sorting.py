"""The packed sort against numpy's lexsort."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm_selector_jax.selection import sorting


@settings(max_examples=100, deadline=None)
@given(
  st.integers(0, 10**6), st.integers(0, 300), st.integers(1, 64), st.integers(0, 50)
)
def test_it_is_lexsort(seed, count, bits, groups):
  rng = np.random.default_rng(seed)
  # Few bits tie often; low ones tie in the upper bits, which alone are packed.
  key = rng.integers(0, 2**64, count, dtype=np.uint64) >> np.uint64(64 - bits)
  if seed % 2:
    key <<= np.uint64(64 - bits)
  then = rng.integers(0, 3, count, dtype=np.uint64)
  group = rng.integers(0, groups + 1, count)
  rows = np.arange(count)
  np.testing.assert_array_equal(sorting.sort_rows(key), np.lexsort((rows, key)))
  np.testing.assert_array_equal(
    sorting.sort_rows(key, group), np.lexsort((rows, key, group))
  )
  np.testing.assert_array_equal(
    sorting.sort_rows(key, group, then), np.lexsort((rows, then, key, group))
  )


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 300), st.integers(1, 64))
def test_runs_begin_where_group_or_key_differ(seed, count, bits):
  rng = np.random.default_rng(seed)
  key = rng.integers(0, 2**64, count, dtype=np.uint64) >> np.uint64(64 - bits)
  key <<= np.uint64(seed % (65 - bits))
  group, then = rng.integers(0, 4, count), rng.integers(0, 3, count, dtype=np.uint64)
  rows, first = sorting.sort_runs(key, group, then)
  pairs = list(zip(group[rows].tolist(), key[rows].tolist(), strict=True))
  before = [None, *pairs[:-1]]
  assert first.tolist() == [a != b for a, b in zip(pairs, before, strict=False)]


def test_chunks_cover_all_rows_once(monkeypatch):
  monkeypatch.setattr(sorting, "CHUNK", 7)
  rng = np.random.default_rng(0)
  for count in (0, 1, 7, 8, 50):
    assert [r for part in sorting.chunks(count) for r in range(count)[part]] == list(
      range(count)
    )
    key = rng.integers(0, 9, count, dtype=np.uint64)
    expected = np.lexsort((np.arange(count), key))
    np.testing.assert_array_equal(sorting.sort_rows(key), expected)


def test_many_groups_leave_no_room_and_are_still_sorted():
  key = np.array([3, 1, 2, 1], np.uint64)
  group = np.array([2**55, 1, 2**55, 1])
  assert sorting.sort_rows(key, group).tolist() == [1, 3, 2, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=40))
def test_float_keys_are_in_the_order_of_their_values(values):
  values = np.array(values, np.float64)
  keys = sorting.float_key(values)
  np.testing.assert_array_equal(
    keys[:, None] < keys[None, :], values[:, None] < values[None, :]
  )
