"""Ranks and bounds against plain numpy."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.selection import necessity
from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.types import InputError


def mean_ranks(values):
  """Average ranks from 1, by counting."""
  below = (values[:, None] > values[None, :]).sum(1)
  equal = (values[:, None] == values[None, :]).sum(1)
  return below + (equal + 1) / 2


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=30))
def test_ranks_equal_counting(values):
  values = np.array(values, np.float64)
  expected = (mean_ranks(values) - 1) / (len(values) - 1)
  np.testing.assert_array_equal(necessity.rank_normalise(values), expected)


def test_seen_rows_are_ranked_among_themselves():
  values = np.array([5.0, 1.0, 0.2, 0.1, 3.0, 0.3])
  seen = np.array([0, 0, 1, 1, 0, 1], bool)
  np.testing.assert_array_equal(
    necessity.rank_normalise(values, seen), [1, 0, 0.5, 0, 0.5, 1]
  )


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 3)), max_size=30))
def test_classes_are_ranked_among_themselves(rows):
  values = np.array([value for value, _ in rows], np.float64)
  classes = np.array([number for _, number in rows], np.int64)
  ranks = necessity.rank_normalise(values, None, classes)
  for number in set(classes.tolist()):
    own = classes == number
    np.testing.assert_array_equal(ranks[own], necessity.rank_normalise(values[own]))
  # What is harder as a class gains nothing by it.
  moved = values + 100 * classes
  np.testing.assert_array_equal(necessity.rank_normalise(moved, None, classes), ranks)


def test_ranks_of_one_row_of_equal_rows_and_of_none():
  assert necessity.rank_normalise(np.array([3.0])).tolist() == [0.5]
  assert necessity.rank_normalise(np.full(5, 2.0)).tolist() == [0.5] * 5
  assert necessity.rank_normalise(np.zeros(0)).tolist() == []


def test_ranks_do_not_depend_on_the_order_or_the_unit():
  values = np.random.default_rng(0).exponential(size=200)
  shuffle = np.random.default_rng(1).permutation(200)
  ranks = necessity.rank_normalise(values)
  np.testing.assert_array_equal(
    necessity.rank_normalise(values[shuffle]), ranks[shuffle]
  )
  np.testing.assert_array_equal(necessity.rank_normalise(np.exp(values)), ranks)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_input_errors(bad):
  with pytest.raises(InputError, match=r"1 of 3 rows .* line 1 of the scores"):
    necessity.rank_normalise(np.array([1.0, bad, 2.0]))


@given(
  st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=60),
  st.sampled_from([0.0, 0.15, 0.3, 0.9]),
)
def test_bound_equals_a_loop_over_groups(rows, bound):
  groups = np.array([group for group, _ in rows])
  values = np.array([value / 9 for _, value in rows])
  expected = np.zeros(len(rows), bool)
  for group in range(3):
    own = np.flatnonzero(groups == group)
    count = int(bound * len(own))
    if len(own) >= 8 and count:
      expected[own] = values[own] > np.sort(values[own])[::-1][count]
  found = necessity.above_bound(values, groups, bound)
  np.testing.assert_array_equal(found, expected)


def test_bound_takes_the_same_share_of_a_hard_group_as_of_an_easy_one():
  groups = np.repeat([0, 1, 2], [100, 20, 7])
  values = np.concatenate(
    [np.linspace(0, 0.5, 100), np.linspace(0.6, 1, 20), np.ones(7)]
  )
  suspect = necessity.above_bound(values, groups, 0.15)
  assert np.bincount(groups, suspect).tolist() == [15, 3, 0]


def test_failures_are_suspect_only_where_the_model_is_mostly_right():
  groups = np.repeat([0, 1, 2], [10, 10, 5])
  accuracy = np.ones(25)
  accuracy[[0, 1, 2, 3]] = 0.9  # 60 % right
  accuracy[10:15] = 0.0  # 50 % right
  accuracy[20] = 0.0  # too small a group
  suspect = necessity.failed_where_competent(accuracy, groups, 0.6)
  assert np.flatnonzero(suspect).tolist() == [0, 1, 2, 3]


@given(st.data())
def test_a_tail_safe_bound_equals_a_loop_over_groups(data):
  count = data.draw(st.integers(1, 80))
  rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
  groups = rng.integers(0, 3, count)
  loss = rng.permutation(count) / count
  seen = rng.random(count) < data.draw(st.sampled_from([0.3, 1.0]))
  accuracy = np.where(rng.random(count) < rng.random(), 1.0, 0.5)
  scores = Scores(
    loss, np.arange(count, dtype=np.uint64), {"accuracy": accuracy}, seen=seen
  )
  named = Groups(groups, ("a", "b", "c"))
  options = SelectOptions(bound="tail_safe")
  found = sort_out(scores, named, 0, options, True).suspect
  ranks = necessity.rank_normalise(loss, seen)
  expected = np.zeros(count, bool)
  for group in range(3):
    own = np.flatnonzero(groups == group)
    asked = own if seen.all() else own[~seen[own]]
    known = len(asked) >= 8 and np.mean(accuracy[asked] == 1) >= 0.3
    if known and int(0.2 * len(own)):
      least = np.sort(ranks[own])[::-1][int(0.2 * len(own))]
      expected[own] = (ranks[own] > least) & (accuracy[own] < 1)
  np.testing.assert_array_equal(found, expected)
  assert not sort_out(scores, named, 0, options, False).suspect.any()
  bare = dataclasses.replace(scores, signals={})
  with pytest.raises(InputError, match=r"select\.bound"):
    sort_out(bare, named, 0, options, True)


def test_misaligned_rows_are_those_that_the_image_harms():
  visual = np.array([0.2, -0.1, np.nan, 0.0])
  assert necessity.misaligned(visual).tolist() == [False, True, False, False]
