"""95 % intervals and p-values: of shares, means over tasks, differences, over seeds."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Z = 1.959963984540054  # the normal distribution's 97.5 % quantile

# What a set without any spread of its own is given, since "no spread seen" in n
# questions is not "no spread". Scores: two wrong and two right more (Agresti and
# Coull 1998, "plus four"). Differences: the second moment of half a gain and
# half a loss among two more pairs (Agresti and Min 2005).
EXTRA_SCORES = (0.0, 0.0, 1.0, 1.0)
EXTRA_DIFFERENCES = (-math.sqrt(0.5), math.sqrt(0.5))


class Interval(NamedTuple):
  """A value and its 95 % interval; bounds are None where nothing shows a spread."""

  value: float
  low: float | None
  high: float | None


class PairedDifference(NamedTuple):
  """How much better the second of two prediction lists is.

  Attributes:
    overall: mean difference over all questions.
    macro: mean over tasks of the tasks' mean differences.
    tasks: mean difference of each task.
    count: questions that both lists answer.
    unpaired: questions that stand in one list only, and do not count.
  """

  overall: Interval
  macro: Interval
  tasks: dict[str, Interval]
  count: int
  unpaired: int


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
  first: Iterable[Mapping[str, Any]], second: Iterable[Mapping[str, Any]]
) -> PairedDifference:
  """Second minus first, question by question.

  Args:
    first, second: predictions, each with "task", "id" and "score"; a task and an
      id stand at most once in each.

  Returns:
    Means of the differences with normal intervals.

  Raises:
    ValueError: the lists share no question.
  """
  left = {(item["task"], item["id"]): item["score"] for item in first}
  right = {(item["task"], item["id"]): item["score"] for item in second}
  tasks: dict[str, list[float]] = {}
  for key, score in left.items():
    if key in right:
      tasks.setdefault(key[0], []).append(right[key] - score)
  if not tasks:
    raise ValueError("The two prediction lists share no question.")
  every = [value for values in tasks.values() for value in values]
  return PairedDifference(
    overall=_stratified([every], EXTRA_DIFFERENCES, -1.0, 1.0),
    macro=_stratified(tasks.values(), EXTRA_DIFFERENCES, -1.0, 1.0),
    tasks={
      task: _stratified([values], EXTRA_DIFFERENCES, -1.0, 1.0)
      for task, values in tasks.items()
    },
    count=len(every),
    unpaired=len(left) + len(right) - 2 * len(every),
  )


def _student_two_sided(t: float, freedom: int) -> float:
  """P(|T| < t) of Student's t, by Abramowitz and Stegun 26.7.3 and 26.7.4."""
  angle = math.atan2(t, math.sqrt(freedom))
  cos, sin = math.cos(angle), math.sin(angle)
  odd = freedom % 2
  term, total = (cos, 0.0) if odd else (1.0, 0.0)
  for k in range(1 + odd, freedom, 2):
    total += term
    term *= cos**2 * k / (k + 1)
  return 2 / math.pi * (angle + sin * total) if odd else sin * total


def student_quantile(freedom: int) -> float:
  """The t that 95 % of Student's distribution lies within, by bisection."""
  low, high = 0.0, 16.0  # 12.7 at one degree of freedom
  for _ in range(60):
    middle = (low + high) / 2
    if _student_two_sided(middle, freedom) < 0.95:
      low = middle
    else:
      high = middle
  return high


def mean_interval(values: Sequence[float]) -> Interval:
  """Mean over repetitions (seeds, pools) with Student's t-interval.

  One value shows no spread: its bounds are None.
  """
  value = statistics.fmean(values)
  if len(values) == 1:
    return Interval(value, None, None)
  half = student_quantile(len(values) - 1) * statistics.stdev(values)
  half /= math.sqrt(len(values))
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
  error = statistics.stdev(differences) / math.sqrt(count)
  half = student_quantile(count - 1) * error
  p = 1 - _student_two_sided(abs(value) / error, count - 1)
  return Test(value, value - half, value + half, min(1.0, max(0.0, p)), count)


def holm(ps: Sequence[float | None]) -> list[float | None]:
  """P-values adjusted for their number (Holm 1979); those that are None stay so."""
  order = sorted((p, place) for place, p in enumerate(ps) if p is not None)
  adjusted: list[float | None] = [None] * len(ps)
  highest = 0.0
  for rank, (p, place) in enumerate(order):
    highest = max(highest, min(1.0, p * (len(order) - rank)))
    adjusted[place] = highest
  return adjusted
