"""Intervals against scipy, closed forms and simulated coverage."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.evaluation import intervals


@pytest.mark.parametrize("correct, count", [(0, 1), (1, 1), (0, 300), (7, 9), (50, 80)])
def test_wilson_equals_scipy(correct, count):
  expected = scipy.stats.binomtest(correct, count).proportion_ci(method="wilson")
  got = intervals.wilson(correct, count)
  np.testing.assert_allclose(
    got, (correct / count, expected.low, expected.high), atol=1e-12
  )


@given(st.integers(1, 10_000), st.data())
def test_wilson_holds_its_share_inside_zero_and_one(count, data):
  correct = data.draw(st.integers(0, count))
  value, low, high = intervals.wilson(correct, count)
  assert 0 <= low <= value <= high <= 1 and low < high


def test_soft_scores_get_the_normal_interval():
  scores = [0.3, 0.6, 0.9, 1.0, 0.0, 0.3]
  half = 1.959963984540054 * np.std(scores, ddof=1) / math.sqrt(6)
  mean = np.mean(scores)
  expected = mean, max(0, mean - half), min(1, mean + half)
  np.testing.assert_allclose(intervals.score_interval(scores), expected, rtol=1e-12)


def test_hard_scores_get_wilsons():
  assert intervals.score_interval([1.0, 0.0, 1.0]) == intervals.wilson(2, 3)


def test_soft_scores_all_alike_still_have_a_width():
  for scores in [0.6], [0.6] * 50:
    value, low, high = intervals.score_interval(scores)
    assert value == pytest.approx(0.6) and 0 <= low < 0.6 < high <= 1


def test_macro_is_the_mean_over_tasks_with_stratified_variance():
  rng = np.random.default_rng(0)
  scores = {
    "a": list(map(float, rng.integers(0, 2, 40))),
    "b": list(map(float, rng.integers(0, 2, 300))),
    "c": list(rng.random(17)),
  }
  mean = np.mean([np.mean(x) for x in scores.values()])
  variance = sum(np.var(x, ddof=1) / len(x) for x in scores.values()) / 9
  half = scipy.stats.norm.ppf(0.975) * math.sqrt(variance)
  np.testing.assert_allclose(
    intervals.macro_interval(scores), (mean, mean - half, mean + half), rtol=1e-12
  )


def test_macro_of_one_task_is_that_tasks_interval():
  scores = [1.0, 1.0, 0.0, 1.0]
  assert intervals.macro_interval({"a": scores}) == intervals.score_interval(scores)


def test_macro_of_perfect_or_single_question_tasks_has_a_width():
  value, low, high = intervals.macro_interval({"a": [1.0] * 20, "b": [1.0]})
  assert (value, high) == (1, 1) and 0 < low < 0.95


def test_macro_covers_the_truth_about_as_often_as_it_says():
  rng = np.random.default_rng(1)
  shares = {"a": 0.9, "b": 0.5, "c": 0.2}
  truth, covered = np.mean(list(shares.values())), 0
  for _ in range(400):
    scores = {k: list(map(float, rng.random(60) < p)) for k, p in shares.items()}
    _, low, high = intervals.macro_interval(scores)
    covered += low <= truth <= high
  assert 0.92 <= covered / 400 <= 0.98


def _predictions(task, scores):
  return [{"task": task, "id": i, "score": score} for i, score in enumerate(scores)]


def test_paired_difference_equals_scipys_paired_statistics():
  rng = np.random.default_rng(2)
  before = rng.integers(0, 2, 200).astype(float)
  after = np.maximum(before, rng.random(200) < 0.2).astype(float)
  out = intervals.paired_difference(
    _predictions("a", before), reversed(_predictions("a", after))
  )
  difference = after - before
  half = scipy.stats.norm.ppf(0.975) * scipy.stats.sem(difference)
  expected = difference.mean(), difference.mean() - half, difference.mean() + half
  np.testing.assert_allclose(out.overall, expected, rtol=1e-10)
  np.testing.assert_allclose(out.macro, expected, rtol=1e-10)
  assert (out.count, out.unpaired) == (200, 0)


def test_paired_macro_weights_tasks_alike():
  before = _predictions("a", [0.0] * 30 + [1.0] * 70) + _predictions("b", [0, 1, 0, 1])
  after = _predictions("a", [0.0] * 20 + [1.0] * 80) + _predictions("b", [0, 0, 0, 1])
  out = intervals.paired_difference(before, after)
  assert out.macro.value == pytest.approx((0.1 - 0.25) / 2)
  assert out.overall.value == pytest.approx((10 - 1) / 104)
  gains = [1.0] * 10 + [0.0] * 90
  losses = [-1.0, 0.0, 0.0, 0.0]
  variance = (np.var(gains, ddof=1) / 100 + np.var(losses, ddof=1) / 4) / 4
  assert out.macro.high - out.macro.value == pytest.approx(
    1.96 * math.sqrt(variance), 1e-4
  )
  assert out.tasks["a"].value == pytest.approx(0.1)
  assert out.tasks["b"].value == pytest.approx(-0.25)


def test_paired_difference_swaps_sign_with_its_arguments():
  rng = np.random.default_rng(3)
  first, second = (_predictions("a", rng.random(20)) for _ in range(2))
  one = intervals.paired_difference(first, second).overall
  other = intervals.paired_difference(second, first).overall
  np.testing.assert_allclose(one, (-other.value, -other.high, -other.low), rtol=1e-12)


def test_paired_difference_counts_what_only_one_list_holds():
  first = _predictions("a", [1, 0, 1]) + _predictions("b", [1])
  second = _predictions("a", [1, 1])
  out = intervals.paired_difference(first, second)
  assert (out.count, out.unpaired) == (2, 2)
  assert set(out.tasks) == {"a"}
  with pytest.raises(ValueError, match="share no question"):
    intervals.paired_difference(first, _predictions("c", [1]))


def test_equal_predictions_differ_by_zero_with_a_width():
  same = _predictions("a", [1.0] * 100)
  value, low, high = intervals.paired_difference(same, same).overall
  # Agresti and Min: half a gain and half a loss more, among two more pairs.
  half = 1.96 * math.sqrt(1 / 102 / 101)
  assert value == 0 and high == pytest.approx(half, rel=1e-3) and low == -high


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 29, 100, 101])
def test_student_quantile_equals_scipy(freedom):
  expected = scipy.stats.t.ppf(0.975, freedom)
  assert intervals.student_quantile(freedom) == pytest.approx(expected, rel=1e-10)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_mean_interval_equals_scipys(values):
  value, low, high = intervals.mean_interval(values)
  error = scipy.stats.sem(values)
  half = scipy.stats.t.ppf(0.975, len(values) - 1) * error
  np.testing.assert_allclose(
    (value, low, high),
    (np.mean(values), np.mean(values) - half, np.mean(values) + half),
    atol=1e-9,
  )


def test_mean_interval_of_one_value_has_no_bounds():
  assert intervals.mean_interval([0.4]) == (0.4, None, None)
