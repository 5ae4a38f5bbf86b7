"""The exact optimum against brute force over all counts."""

import itertools
import math

import jax
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType

from mllm_selector_jax.selection import marginal_gains, objective, shares
from mllm_selector_jax.types import InputError


def brute_force(values, target, weight, budget, floors, capacities):
  """The best F over all counts between floors and capacities, in plain Python."""
  best = -math.inf
  ranges = [
    range(low, min(high, len(own)) + 1)
    for own, low, high in zip(values, floors, capacities, strict=True)
  ]
  for counts in itertools.product(*ranges):
    if sum(counts) != budget:
      continue
    total = sum(sum(own[:n]) for own, n in zip(values, counts, strict=True)) / budget
    divergence = 0.0
    for n, q in zip(counts, target, strict=True):
      if n and not q:
        divergence = math.inf
      elif n:
        divergence += n / budget * math.log(n / budget / q)
    if divergence == math.inf:
      continue
    best = max(best, total - weight * divergence)
  return best


@st.composite
def instances(draw):
  count = draw(st.integers(1, 4))
  # Few levels, so that values tie within and between groups.
  level = st.integers(0, 4).map(lambda n: n / 4)
  within = draw(st.sampled_from(["uniform", "top"]))
  values = []
  for _ in range(count):
    own = sorted(draw(st.lists(level, max_size=5)), reverse=True)
    if within == "uniform":
      own = [sum(own) / max(len(own), 1)] * len(own)
    values.append(own)
  sizes = [len(own) for own in values]
  parts = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
  target = [part / max(sum(parts), 1) for part in parts]
  capacities = [
    draw(st.sampled_from([size, size, draw(st.integers(0, 5))])) for size in sizes
  ]
  floors = [
    draw(st.sampled_from([0, 0, draw(st.integers(0, min(n, cap)))])) if q else 0
    for n, cap, q in zip(sizes, capacities, target, strict=True)
  ]
  most = sum(min(n, c) for n, c, q in zip(sizes, capacities, target, strict=True) if q)
  budget = draw(st.integers(max(sum(floors), 1), max(most, 1)))
  weight = draw(st.sampled_from([0.0, 0.01, 0.3, 0.4, 1.0, 7.0, 1e4, 1e8]))
  return values, target, weight, budget, floors, capacities, most


def lay_out(values, seed=0):
  """Rows in a shuffled order with their groups, values and ties."""
  groups = np.repeat(np.arange(len(values)), [len(own) for own in values])
  flat = np.array([v for own in values for v in own], np.float64)
  shuffle = np.random.default_rng(seed).permutation(len(flat))
  tie = np.random.default_rng(seed + 1).integers(0, 2**64, len(flat), dtype=np.uint64)
  return groups[shuffle], flat[shuffle], tie


@settings(max_examples=600, deadline=None)
@given(instances())
def test_optimum_equals_brute_force(instance):
  values, target, weight, budget, floors, capacities, most = instance
  assume(most >= 1)
  groups, flat, tie = lay_out(values)
  order = objective.order_rows(groups, len(values), tie, flat)
  ordered, target = flat[order.rows], np.array(target)
  gains = marginal_gains.gains(ordered, order, target, weight)
  floors, capacities = np.array(floors), np.array(capacities)
  taken = objective.take(gains, order, tie, budget, floors, capacities)
  assert taken.counts.sum() == budget
  assert np.all(taken.counts >= floors)
  assert np.all(taken.counts <= capacities)
  proof = objective.certify(
    ordered, gains, order, target, weight, taken, floors, capacities
  )
  scale = 1e-10 * max(1.0, weight)
  assert abs(proof.gap) < scale
  best = brute_force(values, target, weight, budget, floors, capacities)
  assert proof.value == pytest.approx(best, abs=scale)


def test_a_worse_selection_has_a_gap():
  groups, flat, tie = lay_out([[0.9] * 6, [0.2] * 6])
  order = objective.order_rows(groups, 2, tie)
  ordered, target = flat[order.rows], np.array([0.5, 0.5])
  gains = marginal_gains.gains(ordered, order, target, 0.4)
  best = objective.take(gains, order, tie, 6)
  other = best._replace(counts=best.counts[::-1].copy())
  proof = objective.certify(ordered, gains, order, target, 0.4, other)
  assert proof.gap > 0.1


def test_gain_is_the_difference_of_the_objective():
  values, target, weight = [[0.7, 0.5, 0.1]], np.array([1.0]), 0.4
  groups, flat, tie = lay_out(values)
  order = objective.order_rows(groups, 1, tie, flat)
  gains = marginal_gains.gains(flat[order.rows], order, target, weight)
  for n in range(1, 4):
    cost = n * math.log(n) - (n - 1) * math.log(n - 1) if n > 1 else 0
    expected = values[0][n - 1] + weight * (math.log(1.0) - cost)
    assert gains[n - 1] == pytest.approx(expected, abs=1e-11)


def test_gains_fall_at_ten_million_rows_of_one_group():
  n = 10_000_000
  order = objective.GroupOrder(np.zeros(n, np.int8), np.array([0, n]))
  for weight in (0.4, 1e6):
    gains = marginal_gains.gains(np.ones(n), order, np.ones(1), weight)
    assert np.all(np.diff(gains[-1000:]) < 0)


def test_no_floor_takes_from_a_group_of_share_zero_nor_runs_out():
  groups, flat, tie = lay_out([[0.1] * 3, [0.9] * 5])
  order = objective.order_rows(groups, 2, tie)
  target = np.array([1.0, 0.0])
  gains = marginal_gains.gains(flat[order.rows], order, target, 0.0)
  assert objective.take(gains, order, tie, 6).counts.tolist() == [3, 0]
  taken = objective.take(gains, order, tie, 6, np.array([0, 2]))
  assert taken.counts.tolist() == [3, 2]
  proof = objective.certify(
    flat[order.rows], gains, order, target, 0.0, taken, np.array([0, 2])
  )
  assert abs(proof.gap) < 1e-12


def test_floors_above_budget_or_capacity_are_input_errors():
  groups, flat, tie = lay_out([[0.1] * 3, [0.9] * 5])
  order = objective.order_rows(groups, 2, tie)
  gains = marginal_gains.gains(flat[order.rows], order, np.array([0.5, 0.5]), 0.4)
  with pytest.raises(InputError, match="floors sum to 4 rows"):
    objective.take(gains, order, tie, 3, np.array([2, 2]))
  with pytest.raises(InputError, match="Group 1 has a floor of 2"):
    objective.take(gains, order, tie, 4, np.array([0, 2]), np.array([3, 1]))


def test_equal_gains_go_by_tie_then_row():
  tie = np.array([5, 5, 1, 9], np.uint64)
  groups = np.arange(4)
  order = objective.order_rows(groups, 4, tie)
  gains = marginal_gains.gains(np.full(4, 0.5), order, np.full(4, 0.25), 0.4)
  for budget, expected in ((1, [0, 0, 1, 0]), (2, [1, 0, 1, 0]), (3, [1, 1, 1, 0])):
    assert objective.take(gains, order, tie, budget).counts.tolist() == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=6))
def test_ranges_of_places_are_those_of_a_loop(groups):
  sizes, first, last = np.array(groups).T
  order = objective.GroupOrder(
    np.arange(sizes.sum()), np.concatenate([[0], np.cumsum(sizes)])
  )
  expected = [f < n <= m for s, f, m in groups for n in range(1, s + 1)]
  assert order.within(first, last).tolist() == expected
  assert order.place.tolist() == [n for s, _, _ in groups for n in range(1, s + 1)]


def test_only_allowed_rows_are_ordered():
  groups, flat, tie = lay_out([[0.1] * 30, [0.2] * 7, [0.3] * 12])
  allowed = np.random.default_rng(5).random(49) < 0.6
  order = objective.order_rows(groups, 3, tie, flat, allowed=allowed)
  rows = np.flatnonzero(allowed)
  alone = objective.order_rows(groups[rows], 3, tie[rows], flat[rows])
  np.testing.assert_array_equal(order.rows, rows[alone.rows])
  np.testing.assert_array_equal(order.starts, alone.starts)
  nothing = objective.order_rows(groups, 3, tie, allowed=np.zeros(49, bool))
  assert not len(nothing.rows) and nothing.starts.tolist() == [0] * 4


def test_gains_are_the_same_on_one_and_on_eight_devices():
  groups, flat, tie = lay_out([[0.3] * 400, [0.8] * 57, [0.5] * 900])
  order = objective.order_rows(groups, 3, tie)
  target = np.array([0.5, 0.2, 0.3])
  alone = marginal_gains.gains(flat[order.rows], order, target, 0.4)
  assert len(jax.devices()) == 8
  with jax.set_mesh(jax.make_mesh((8,), ("data",), (AxisType.Auto,))):
    spread = marginal_gains.gains(flat[order.rows], order, target, 0.4)
  assert alone.dtype == np.float64
  np.testing.assert_array_equal(alone, spread)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(0, 100))
def test_floors_never_fall_as_the_total_grows(sizes, total):
  sizes = np.array(sizes)
  total = min(total, int(sizes.sum()))
  floors = shares.proportional_floors(sizes, total)
  assert floors.sum() == total
  assert np.all(floors <= sizes)
  assert np.all(floors >= total * sizes // max(sizes.sum(), 1))
  if total:
    assert np.all(shares.proportional_floors(sizes, total - 1) <= floors)
  # The rule itself: the largest of size / seat, one at a time.
  plain = np.zeros(len(sizes), int)
  for _ in range(total):
    plain[int(np.argmax(sizes / (plain + 1)))] += 1
  np.testing.assert_array_equal(floors, plain)


def test_target_shares():
  sizes = np.array([16, 4, 0])
  np.testing.assert_allclose(shares.target_shares(sizes, "pool"), [0.8, 0.2, 0])
  np.testing.assert_allclose(
    shares.target_shares(sizes, "tempered", 0.5), [4 / 6, 2 / 6, 0]
  )
  np.testing.assert_allclose(shares.target_shares(sizes, "uniform"), [0.5, 0.5, 0])
  given_shares = shares.target_shares(sizes, "given", given=(0.0, 0.5, 0.5))
  np.testing.assert_allclose(given_shares, [0, 0.5, 0.5])
  for wrong, message in (
    ((0.5, 0.5), "2 target shares"),
    ((0.5, 0.2, 0.2), "sum to"),
    ((1.5, -0.5, 0.0), "must not be negative"),
  ):
    with pytest.raises(InputError, match=message):
      shares.target_shares(sizes, "given", given=wrong)


def test_group_means_do_not_depend_on_the_order_of_rows():
  rng = np.random.default_rng(0)
  values, groups = rng.random(5000), rng.integers(0, 7, 5000)
  means = shares.group_means(values, groups, 8)
  expected = [values[groups == c].mean() for c in range(7)] + [0]
  np.testing.assert_allclose(means, expected, atol=1e-9)
  shuffle = rng.permutation(5000)
  np.testing.assert_array_equal(
    means, shares.group_means(values[shuffle], groups[shuffle], 8)
  )


def test_target_shares_by_name_and_like_a_set_of_samples():
  sizes, names = np.array([16, 4, 0]), ("a", "b", "c")
  found = shares.target_shares(
    sizes, "given", given={"b": 0.75, "a": 0.25}, names=names
  )
  np.testing.assert_allclose(found, [0.25, 0.75, 0])
  with pytest.raises(InputError, match=r"names 'd', which is no group; the 3 groups"):
    shares.target_shares(sizes, "given", given={"d": 1.0}, names=names)
  like = shares.target_shares(sizes, "like", like=np.array([1, 3, 0]))
  np.testing.assert_allclose(like, [0.25, 0.75, 0])
  with pytest.raises(InputError, match="no samples are given"):
    shares.target_shares(sizes, "like", like=np.zeros(3, int))
