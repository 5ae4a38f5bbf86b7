"""Fits a mixture of two Gaussians to each group of values."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.sorting import CHUNK, chunks, float_key, sort_rows

FIT_VALUES = 512  # the maximum of values that a mixture is fitted to, at even ranks
# Samples are filled up to one of two lengths, so that no more than two are compiled.
_SHORT = 128
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
      with np.errstate(over="ignore"):  # 1 / inf is the right 0
        upper = 1 / (1 + np.exp(-((a[group] * x + b[group]) * x + c[group])))
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
  kept = np.minimum(sizes, FIT_VALUES)
  # Sorted, so that no sum depends on the order of the rows.
  order = sort_rows(float_key(values), groups)
  mean, spread, sample = _standardise(values, order, sizes, kept)
  starts = np.cumsum(kept) - kept
  floor, curve = np.zeros(count), np.zeros((3, count))
  for length, alike in _by_length(kept):
    for first in range(0, len(alike), _BLOCK // length):
      block = alike[first : first + _BLOCK // length]
      floor[block], curve[:, block] = _fit(sample, starts, kept, block, length)
  return Mixtures(mean, spread, floor, curve)


def _standardise(values, order, sizes, kept):
  """Scales each group to mean 0 and deviation 1, and samples it at even ranks.

  Args:
    values: the values of all groups.
    order: their places by group and value.
    sizes: the number of values of each group.
    kept: the number of values to sample from each group.

  Returns:
    The mean and the deviation of each group; and the samples, group after group.
  """
  ends, sample_ends = np.cumsum(sizes), np.cumsum(kept)
  mean, spread = np.zeros(len(sizes)), np.zeros(len(sizes))
  sample = np.empty(int(kept.sum()))
  for block in _blocks(sizes):
    size, own = sizes[block], np.repeat(np.arange(len(block)), sizes[block])
    begin = ends[block[0]] - size[0]
    begins = ends[block] - size - begin
    x = values[order[begin : ends[block[-1]]]].astype(np.float64)
    mean[block] = np.add.reduceat(x, begins) / size
    x -= mean[block][own]
    spread[block] = np.sqrt(np.add.reduceat(x * x, begins) / size)
    x /= np.where(spread[block] > 0, spread[block], 1)[own]
    part = slice(sample_ends[block[0]] - kept[block[0]], sample_ends[block[-1]])
    sample[part] = x[_even_ranks(begins, size, kept[block])]
  return mean, spread, sample


def _blocks(sizes: Int[np.ndarray, " G"]) -> list[Int[np.ndarray, " g"]]:
  """Divides the groups that have values into blocks of about `CHUNK` values."""
  present = np.flatnonzero(sizes)
  number = np.cumsum(sizes[present]) // CHUNK
  return np.split(present, np.flatnonzero(np.diff(number)) + 1) if len(present) else []


def _even_ranks(starts, sizes, kept) -> Int[np.ndarray, " n"]:
  """Returns `kept` places at even distances for each group of `sizes` places."""
  group = np.repeat(np.arange(len(sizes)), kept)
  place = np.arange(len(group)) - (np.cumsum(kept) - kept)[group]
  return starts[group] + ((2 * place + 1) * sizes[group]) // (2 * kept[group])


def _by_length(sizes: Int[np.ndarray, " G"]) -> list[tuple[int, np.ndarray]]:
  """Divides the groups that have values by the length to which they are filled up."""
  short = sizes <= _SHORT
  return [
    (_SHORT, np.flatnonzero(short & (sizes > 0))),
    (FIT_VALUES, np.flatnonzero(~short)),
  ]


def _fit(sample, starts, sizes, block, length):
  """Fits the groups of a block, filled up to `length` values and to a whole block."""
  from mllm_selector_jax.selection import mixture_em  # imports jax

  count, columns = len(block), _BLOCK // length
  place = np.arange(length)[:, None]
  valid = np.zeros((length, columns), bool)
  valid[:, :count] = place < sizes[block]
  x = np.zeros((length, columns))
  x[:, :count] = sample[np.where(valid[:, :count], starts[block] + place, 0)]
  floor, curve = mixture_em.fit_columns(x, valid)
  return floor[:count], curve[:, :count]
