"""95 % intervals and p-values of shares, of means, and of differences."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Z = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution

# Scores that are added if all scores of a task are equal, since their variance is then
# not known to be 0: two wrong and two right ones ("plus four", Agresti and Coull 1998).
EXTRA_SCORES = (0.0, 0.0, 1.0, 1.0)


class Interval(NamedTuple):
  """A value and its 95 % interval; bounds are None if they cannot be estimated."""

  value: float
  low: float | None
  high: float | None


@dataclasses.dataclass(frozen=True)
class Difference:
  """The difference of the mean scores of two arms on the same questions.

  Attributes:
    value: the difference.
    low, high: the bounds of its 95 % interval.
    questions: the number of questions that both arms answered.
  """

  value: float
  low: float
  high: float
  questions: int

  @property
  def verdict(self) -> str:
    if self.low > 0:
      return "better"
    return "worse" if self.high < 0 else "unclear"


class PairedDifference(NamedTuple):
  """The differences between two arms, for each task and over the tasks."""

  tasks: dict[str, Difference]
  macro: Difference


class Test(NamedTuple):
  """A mean difference over repetitions, with its 95 % interval and p-value.

  Attributes:
    value: the mean difference.
    low, high: the bounds of the interval; None if they cannot be estimated.
    p: the two-sided p-value of Student's t-test that the mean is 0; None likewise.
    count: the number of repetitions.
  """

  value: float
  low: float | None
  high: float | None
  p: float | None
  count: int


def wilson(correct: float, count: int) -> Interval:
  """Computes Wilson's score interval of a share (Wilson 1927)."""
  assert 0 <= correct <= count and count, (correct, count)
  share = correct / count
  shrink = 1 + Z**2 / count
  centre = (share + Z**2 / (2 * count)) / shrink
  half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / shrink
  # At shares of 0 and 1 a bound equals the share, which rounding errors must not cross.
  low, high = max(0.0, centre - half), min(1.0, centre + half)
  return Interval(share, min(low, share), max(high, share))


def _mean_variance(values: Sequence[float], extra: Sequence[float]) -> float:
  """Returns the variance of the mean; if all values are equal, `extra` are added."""
  if min(values) == max(values):
    values = [*values, *extra]
  return statistics.variance(values) / len(values)


def _normal(value: float, variance: float, low: float, high: float) -> Interval:
  half = Z * math.sqrt(variance)
  return Interval(value, max(low, value - half), min(high, value + half))


def score_interval(scores: Sequence[float]) -> Interval:
  """Computes the interval of the mean of scores in [0, 1].

  It is Wilson's interval if all scores are 0 or 1, and otherwise the normal one.
  """
  if all(score in (0, 1) for score in scores):
    return wilson(sum(scores), len(scores))
  variance = _mean_variance(scores, EXTRA_SCORES)
  return _normal(statistics.fmean(scores), variance, 0.0, 1.0)


def _stratified(
  groups: Iterable[Sequence[float]], extra: Sequence[float], low: float, high: float
) -> Interval:
  groups = list(groups)
  value = statistics.fmean(statistics.fmean(group) for group in groups)
  variance = sum(_mean_variance(group, extra) for group in groups) / len(groups) ** 2
  return _normal(value, variance, low, high)


def macro_interval(scores: Mapping[str, Sequence[float]]) -> Interval:
  """Computes the interval of the mean over tasks of their mean scores.

  Tasks are fixed strata: the variance is the sum of the variances of the tasks' means,
  divided by the square of the number of tasks.

  Args:
    scores: the scores of the questions of each task, in [0, 1].
  """
  if len(scores) == 1:
    return score_interval(next(iter(scores.values())))
  return _stratified(scores.values(), EXTRA_SCORES, 0.0, 1.0)


def paired_difference(
  first: Mapping[tuple[str, str], float], second: Mapping[tuple[str, str], float]
) -> PairedDifference | None:
  """Compares two arms, first minus second, on the questions that both answered.

  The interval is that of the adjusted Wald method for paired proportions: one question
  won and one lost are added to every task before the normal approximation, so that a
  difference over few questions never looks certain. In the macro difference the T tasks
  have equal weights, and its variance is the sum of theirs divided by T squared.

  Args:
    first, second: scores in [0, 1] by (task, question).

  Returns:
    The differences; None if there is no common question.

  References:
    Bonett and Price, Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data, 2012.
  """
  by_task: dict[str, list[float]] = {}
  for (task, name), score in sorted(first.items()):
    if (task, name) in second:
      by_task.setdefault(task, []).append(score - second[task, name])
  if not by_task:
    return None
  parts = {task: _adjust(differences) for task, differences in by_task.items()}
  tasks = {
    task: _describe(value, centre, variance, len(by_task[task]))
    for task, (value, centre, variance) in parts.items()
  }
  value, centre, variance = (
    statistics.fmean(column) for column in zip(*parts.values(), strict=True)
  )
  questions = sum(map(len, by_task.values()))
  macro = _describe(value, centre, variance / len(parts), questions)
  return PairedDifference(tasks, macro)


def _adjust(differences: Sequence[float]) -> tuple[float, float, float]:
  """Returns the mean, the mean with one question won and one lost, and its variance."""
  adjusted = [*differences, 1.0, -1.0]
  variance = statistics.pvariance(adjusted) / len(adjusted)
  return statistics.fmean(differences), statistics.fmean(adjusted), variance


def _describe(value: float, centre: float, variance: float, count: int) -> Difference:
  half = Z * math.sqrt(variance)
  # If very few questions are all won or all lost, the centre is far from the value,
  # which the interval has to contain.
  low = max(-1.0, min(centre - half, value))
  high = min(1.0, max(centre + half, value))
  return Difference(value, low, high, count)


def mean_interval(values: Sequence[float]) -> Interval:
  """Computes Student's t-interval of the mean over repetitions (seeds, pools).

  For a single value the bounds are None.
  """
  value = statistics.fmean(values)
  if len(values) == 1:
    return Interval(value, None, None)
  half = _student_half(values)
  return Interval(value, value - half, value + half)


def paired_test(first: Sequence[float], second: Sequence[float]) -> Test:
  """Tests the difference, first minus second, by Student's paired t-test.

  Args:
    first, second: one value for each repetition, in the same order.

  Returns:
    The mean difference. Its bounds and p-value are None if there is only one
    repetition or all differences are equal, since t is not defined then.
  """
  differences = [a - b for a, b in zip(first, second, strict=True)]
  count = len(differences)
  value = statistics.fmean(differences)
  # Differences that are equal as decimals may differ in their last bits.
  if count == 1 or max(differences) - min(differences) < 1e-12:
    return Test(value, None, None, None, count)
  from scipy import stats  # slow to import

  p = float(stats.ttest_1samp(differences, 0.0).pvalue)
  half = _student_half(differences)
  return Test(value, value - half, value + half, p, count)


def _student_half(values: Sequence[float]) -> float:
  """Returns half the width of Student's 95 % interval of a mean."""
  from scipy import stats

  error = statistics.stdev(values) / math.sqrt(len(values))
  return float(stats.t.ppf(0.975, len(values) - 1)) * error


def holm(ps: Sequence[float | None]) -> list[float | None]:
  """Adjusts p-values for multiple comparisons (Holm 1979); None stays None."""
  order = sorted((p, place) for place, p in enumerate(ps) if p is not None)
  adjusted: list[float | None] = [None] * len(ps)
  highest = 0.0
  for rank, (p, place) in enumerate(order):
    highest = max(highest, min(1.0, p * (len(order) - rank)))
    adjusted[place] = highest
  return adjusted
