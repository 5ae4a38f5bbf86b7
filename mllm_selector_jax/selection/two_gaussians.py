"""Fits a mixture of two Gaussians to each group of values."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.sorting import CHUNK, chunks, float_key, sort_rows

FIT_VALUES = 512  # the maximum of values that a mixture is fitted to, at even ranks
_STEPS = 100  # the number of EM steps
_LEAST_WIDTH = 0.02  # of a component, relative to the standard deviation of its group
_LEAST_LENGTH = 32  # values; shorter samples are filled up to this length
_BLOCK = 1 << 14  # values that are fitted together, few enough for the cache


class Mixtures(NamedTuple):
  """The mixture of each group; all fields are 0 for a group without values.

  Attributes:
    mean, spread: the mean and the standard deviation of the group's values. The other
      fields refer to values from which the mean is subtracted, in units of the spread.
    floor: the mean of the lower component.
    curve: the coefficients of 1, x and x^2 in the log odds of the upper component.
  """

  mean: Float[np.ndarray, " G"]
  spread: Float[np.ndarray, " G"]
  floor: Float[np.ndarray, " G"]
  curve: Float[np.ndarray, "3 G"]

  def upper(
    self, values: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
  ) -> Float[np.ndarray, " n"]:
    """Returns the probability that a value belongs to the upper component.

    It is 0 below the mean of the lower component, and in a group of equal values.

    Args:
      values: finite values.
      groups: the group of each value.
    """
    out = np.empty(len(values))
    spread = np.where(self.spread > 0, self.spread, 1)
    for part in chunks(len(values)):
      group = groups[part]
      x = (values[part] - self.mean[group]) / spread[group]
      c, b, a = self.curve
      upper = _sigmoid((a[group] * x + b[group]) * x + c[group])
      upper[(x <= self.floor[group]) | (self.spread[group] <= 0)] = 0
      # The last bits of an exponential differ between processors.
      out[part] = np.rint(upper * 2.0**32) * 2.0**-32
    return out


def fit_mixtures(
  values: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
) -> Mixtures:
  """Fits a mixture of two Gaussians to the values of each group.

  The fit is by EM (Dempster, Laird and Rubin 1977), which starts with the top fifth of
  each group as the upper component, to at most `FIT_VALUES` values of a group. The
  result does not depend on the order of the rows, nor on other groups.

  Args:
    values: finite values.
    groups: the group of each value, from 0.
  """
  count = int(groups.max(initial=-1)) + 1
  sizes = np.bincount(groups, minlength=count)
  ends = np.cumsum(sizes)
  starts = ends - sizes
  # Sorted, so that no sum depends on the order of the rows.
  order = sort_rows(float_key(values), groups)
  mean, spread = np.zeros(count), np.zeros(count)
  kept = np.minimum(sizes, FIT_VALUES)
  sample_starts = np.cumsum(kept) - kept
  sample = np.empty(int(kept.sum()))
  for block in _blocks(sizes, CHUNK):
    size, own = sizes[block], np.repeat(np.arange(len(block)), sizes[block])
    begins = starts[block] - starts[block[0]]
    x = values[order[starts[block[0]] : ends[block[-1]]]].astype(np.float64)
    mean[block] = np.add.reduceat(x, begins) / size
    x -= mean[block][own]
    spread[block] = np.sqrt(np.add.reduceat(x * x, begins) / size)
    x /= np.where(spread[block] > 0, spread[block], 1)[own]
    first, last = sample_starts[block[0]], sample_starts[block[-1]] + kept[block[-1]]
    sample[first:last] = x[_even_ranks(begins, size, kept[block])]
  floor, curve = np.zeros(count), np.zeros((3, count))
  for block, x, valid in _padded(sample, sample_starts, kept):
    floor[block], curve[:, block] = _fit(x, valid, kept[block])
  return Mixtures(mean, spread, floor, curve)


def _blocks(sizes: Int[np.ndarray, " G"], most: int) -> Iterator[np.ndarray]:
  """Divides the groups that have values into blocks of about `most` values."""
  present = np.flatnonzero(sizes)
  number = np.cumsum(sizes[present]) // most
  yield from np.split(present, np.flatnonzero(np.diff(number)) + 1) if len(present) else ()


def _even_ranks(starts, sizes, kept) -> Int[np.ndarray, " n"]:
  """Returns `kept` places at even distances for each group of `sizes` places."""
  group = np.repeat(np.arange(len(sizes)), kept)
  place = np.arange(len(group)) - (np.cumsum(kept) - kept)[group]
  return starts[group] + ((2 * place + 1) * sizes[group]) // (2 * kept[group])


def _padded(sample, starts, sizes):
  """Yields blocks of groups as rows of one length, which their size alone decides.

  Yields:
    The groups, their values, and 1 where there is a value, else 0.
  """
  length = np.maximum(_LEAST_LENGTH, 2 ** np.ceil(np.log2(np.maximum(sizes, 1))))
  length = length.astype(np.int64)
  for columns in np.unique(length[sizes > 0]).tolist():
    alike = np.flatnonzero((length == columns) & (sizes > 0))
    rows = max(1, _BLOCK // columns)
    for first in range(0, len(alike), rows):
      block = alike[first : first + rows]
      place = np.arange(columns)
      valid = place < sizes[block][:, None]
      x = sample[np.where(valid, starts[block][:, None] + place, 0)]
      yield block, x * valid, valid.astype(np.float64)


def _fit(
  x: Float[np.ndarray, "g n"],
  valid: Float[np.ndarray, "g n"],
  sizes: Int[np.ndarray, " g"],
) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, "3 g"]]:
  """Fits the two components of each row by EM; returns `floor` and `curve`."""
  basis = np.stack([valid, x, x * x])
  upper = (np.arange(x.shape[1]) >= 0.8 * sizes[:, None]).astype(np.float64)
  curve = None
  for _ in range(_STEPS):
    low, high = _describe(np.vecdot(basis, 1 - upper)), _describe(np.vecdot(basis, upper))
    before, curve = curve, _log_odds(low, high)
    if before is not None and np.array_equal(before, curve):
      break
    upper = curve[2, :, None] * x
    upper += curve[1, :, None]
    upper *= x
    upper += curve[0, :, None]
    upper = _sigmoid(upper)
  # What is called the upper component may have ended below the other.
  turned = high.centre < low.centre
  return np.minimum(low.centre, high.centre), np.where(turned, -curve, curve)


class _Component(NamedTuple):
  """One Gaussian for each group.

  Attributes:
    scale: log(weight / width).
    centre: the mean.
    variance: the square of the width.
  """

  scale: Float[np.ndarray, " g"]
  centre: Float[np.ndarray, " g"]
  variance: Float[np.ndarray, " g"]


def _describe(moments: Float[np.ndarray, "3 g"]) -> _Component:
  """Returns the Gaussians of given sums of weights, weighted x and weighted x^2."""
  total, first, second = moments
  weight = np.maximum(total, 1e-9)
  centre = first / weight
  variance = (second - 2 * centre * first + centre**2 * total) / weight
  variance = np.maximum(variance, _LEAST_WIDTH**2)
  return _Component(np.log(weight) - np.log(variance) / 2, centre, variance)


def _log_odds(low: _Component, high: _Component) -> Float[np.ndarray, "3 g"]:
  """Returns the coefficients of 1, x and x^2 in the log odds of `high`."""
  return np.stack(
    [
      high.scale
      - low.scale
      - high.centre**2 / (2 * high.variance)
      + low.centre**2 / (2 * low.variance),
      high.centre / high.variance - low.centre / low.variance,
      1 / (2 * low.variance) - 1 / (2 * high.variance),
    ]
  )


def _sigmoid(log_odds: np.ndarray) -> np.ndarray:
  """Returns the probabilities of log odds, in place."""
  np.negative(log_odds, out=log_odds)
  with np.errstate(over="ignore"):  # 1 / inf is the right 0
    np.exp(log_odds, out=log_odds)
  log_odds += 1
  return np.reciprocal(log_odds, out=log_odds)
