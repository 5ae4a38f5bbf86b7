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


def _scores(task, values):
  return {(task, str(number)): value for number, value in enumerate(values)}


def test_a_paired_difference_is_bonett_and_prices():
  rng = np.random.default_rng(2)
  before = rng.integers(0, 2, 200).astype(float)
  after = np.maximum(before, rng.random(200) < 0.2).astype(float)
  found = intervals.paired_difference(_scores("a", after), _scores("a", before)).macro
  # Their form: one pair more of each kind of discordance, in 2 more pairs.
  won, lost, count = (after > before).sum() + 1, (after < before).sum() + 1, 202
  centre = (won - lost) / count
  half = scipy.stats.norm.ppf(0.975) * math.sqrt(
    ((won + lost) / count - centre**2) / count
  )
  np.testing.assert_allclose(
    (found.value, found.low, found.high),
    ((after - before).mean(), centre - half, centre + half),
    rtol=1e-10,
  )
  assert found.questions == 200


def test_the_macro_difference_weighs_tasks_alike():
  after = _scores("a", [0.0] * 20 + [1.0] * 80) | _scores("b", [0, 0, 0, 1])
  before = _scores("a", [0.0] * 30 + [1.0] * 70) | _scores("b", [0, 1, 0, 1])
  found = intervals.paired_difference(after, before)
  assert found.macro.value == pytest.approx((0.1 - 0.25) / 2)
  gains = [1.0] * 10 + [0.0] * 90 + [1.0, -1.0]
  losses = [-1.0, 0.0, 0.0, 0.0] + [1.0, -1.0]
  variance = (np.var(gains) / 102 + np.var(losses) / 6) / 4
  assert found.macro.high - found.macro.low == pytest.approx(
    2 * 1.96 * math.sqrt(variance), 1e-4
  )
  assert found.tasks["a"].value == pytest.approx(0.1)
  assert found.tasks["b"].value == pytest.approx(-0.25)


def test_a_paired_difference_swaps_sign_with_its_arguments():
  rng = np.random.default_rng(3)
  first, second = (_scores("a", rng.random(20)) for _ in range(2))
  one = intervals.paired_difference(first, second).macro
  other = intervals.paired_difference(second, first).macro
  np.testing.assert_allclose(
    (one.value, one.low, one.high), (-other.value, -other.high, -other.low), rtol=1e-12
  )


def test_only_questions_that_both_answered_count():
  first = _scores("a", [1, 0, 1]) | _scores("b", [1])
  found = intervals.paired_difference(first, _scores("a", [1, 1]))
  assert found.macro.questions == 2 and set(found.tasks) == {"a"}
  assert intervals.paired_difference(first, _scores("c", [1])) is None


def test_equal_scores_differ_by_zero_with_a_width():
  same = _scores("a", [1.0] * 100)
  found = intervals.paired_difference(same, same).macro
  half = 1.96 * math.sqrt(2 / 102 / 102)
  assert found.value == 0 and found.high == pytest.approx(half, rel=1e-3)
  assert found.low == -found.high and found.verdict == "unclear"


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
