"""95 % intervals and p-values: of shares, means over tasks, differences, over seeds."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Z = 1.959963984540054  # the normal distribution's 97.5 % quantile

# What scores without any spread of their own are given, since "no spread seen" in n
# questions is not "no spread": two wrong and two right more (Agresti and Coull
# 1998, "plus four").
EXTRA_SCORES = (0.0, 0.0, 1.0, 1.0)


class Interval(NamedTuple):
  """A value and its 95 % interval; bounds are None where nothing shows a spread."""

  value: float
  low: float | None
  high: float | None


@dataclasses.dataclass(frozen=True)
class Difference:
  """How much better one arm answered the same questions than another one.

  Attributes:
    value: the difference of their mean scores.
    low, high: the 95 % interval.
    questions: how many questions both answered.
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
  """Two arms on the questions that both answered, by task and over the tasks."""

  tasks: dict[str, Difference]
  macro: Difference


class Test(NamedTuple):
  """A mean difference over repetitions, its 95 % interval and Student's p-value.

  Attributes:
    value: the mean.
    low, high: bounds; None where nothing shows a spread.
    p: two-sided, of a mean of 0; None likewise.
    count: repetitions.
  """

  value: float
  low: float | None
  high: float | None
  p: float | None
  count: int


def wilson(correct: float, count: int) -> Interval:
  """Wilson's score interval of a share (Wilson 1927)."""
  assert 0 <= correct <= count and count, (correct, count)
  share = correct / count
  shrink = 1 + Z**2 / count
  centre = (share + Z**2 / (2 * count)) / shrink
  half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / shrink
  # At shares of 0 and 1 a bound equals the share; rounding must not cross it.
  low, high = max(0.0, centre - half), min(1.0, centre + half)
  return Interval(share, min(low, share), max(high, share))


def _mean_variance(values: Sequence[float], extra: Sequence[float]) -> float:
  """Variance of the values' mean; `extra` joins values that are all alike."""
  if min(values) == max(values):
    values = [*values, *extra]
  return statistics.variance(values) / len(values)


def _normal(value: float, variance: float, low: float, high: float) -> Interval:
  half = Z * math.sqrt(variance)
  return Interval(value, max(low, value - half), min(high, value + half))


def score_interval(scores: Sequence[float]) -> Interval:
  """Mean of scores in [0, 1]: Wilson's if all are 0 or 1, else the normal one."""
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
  """Mean over tasks of the tasks' mean scores, for these tasks.

  Tasks are strata: the variance is the sum of the tasks' variances of the mean,
  over the square of their number.
  """
  if len(scores) == 1:
    return score_interval(next(iter(scores.values())))
  return _stratified(scores.values(), EXTRA_SCORES, 0.0, 1.0)


def paired_difference(
  first: Mapping[tuple[str, str], float], second: Mapping[tuple[str, str], float]
) -> PairedDifference | None:
  """First minus second, on the questions that both answered; None where there is none.

  The interval is that of the adjusted Wald method for paired proportions: one
  question won and one lost are added to every task before the normal
  approximation, so that few questions never look certain. The macro difference
  weighs the tasks equally; its variance is the sum of theirs over T squared.

  Args:
    first, second: scores in [0, 1] by task and question.

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
  """Mean, mean with one more question won and lost, and that one's variance."""
  widened = [*differences, 1.0, -1.0]
  variance = statistics.pvariance(widened) / len(widened)
  return statistics.fmean(differences), statistics.fmean(widened), variance


def _describe(value: float, centre: float, variance: float, count: int) -> Difference:
  half = Z * math.sqrt(variance)
  # Of very few questions, all won or lost, the centre is drawn far from the value.
  low = max(-1.0, min(centre - half, value))
  high = min(1.0, max(centre + half, value))
  return Difference(value, low, high, count)


def mean_interval(values: Sequence[float]) -> Interval:
  """Mean over repetitions (seeds, pools) with Student's t-interval.

  One value shows no spread: its bounds are None.
  """
  value = statistics.fmean(values)
  if len(values) == 1:
    return Interval(value, None, None)
  half = _student_half(values)
  return Interval(value, value - half, value + half)


def paired_test(first: Sequence[float], second: Sequence[float]) -> Test:
  """First minus second over the same repetitions: Student's paired t-test.

  Args:
    first, second: a value a repetition, in the same order.

  Returns:
    The mean difference. One repetition, or differences that are all alike, show
    no spread: bounds and p are None then, since no t could be told.
  """
  differences = [a - b for a, b in zip(first, second, strict=True)]
  count = len(differences)
  value = statistics.fmean(differences)
  # Differences of equal decimals differ in their last bits.
  if count == 1 or max(differences) - min(differences) < 1e-12:
    return Test(value, None, None, None, count)
  from scipy import stats  # slow to import

  p = float(stats.ttest_1samp(differences, 0.0).pvalue)
  half = _student_half(differences)
  return Test(value, value - half, value + half, p, count)


def _student_half(values: Sequence[float]) -> float:
  """Half the width of Student's 95 % interval of a mean."""
  from scipy import stats

  error = statistics.stdev(values) / math.sqrt(len(values))
  return float(stats.t.ppf(0.975, len(values) - 1)) * error


def holm(ps: Sequence[float | None]) -> list[float | None]:
  """P-values adjusted for their number (Holm 1979); those that are None stay so."""
  order = sorted((p, place) for place, p in enumerate(ps) if p is not None)
  adjusted: list[float | None] = [None] * len(ps)
  highest = 0.0
  for rank, (p, place) in enumerate(order):
    highest = max(highest, min(1.0, p * (len(order) - rank)))
    adjusted[place] = highest
  return adjusted
