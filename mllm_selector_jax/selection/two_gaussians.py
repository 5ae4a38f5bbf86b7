"""Fits a mixture of two Gaussians to each group of values."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.sorting import float_key, sort_rows

FIT_VALUES = 512  # the maximum of values that a mixture is fitted to, at even ranks
_STEPS = 100  # the number of EM steps
_LEAST_WIDTH = 0.02  # of a component, relative to the standard deviation of its group


class _Component(NamedTuple):
  """One Gaussian for each group.

  Attributes:
    scale: log(weight / width).
    centre: the mean.
    width: the standard deviation.
  """

  scale: Float[np.ndarray, " G"]
  centre: Float[np.ndarray, " G"]
  width: Float[np.ndarray, " G"]


def upper_component(
  values: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
  """Returns the probability that a value belongs to the upper Gaussian of its group.

  The mixture is fitted by EM (Dempster, Laird and Rubin 1977), which starts with the
  top fifth of each group as the upper component, to at most `FIT_VALUES` values. The
  result does not depend on the order of the rows. It is 0 below the mean of the lower
  component, and if all values of the group are equal.

  Args:
    values: finite values.
    groups: the group of each value, from 0.
  """
  # Sorted, so that no sum depends on the order of the rows.
  order = sort_rows(float_key(values), groups)
  x, group = np.asarray(values, np.float64)[order], groups[order]
  starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
  sizes = np.diff(np.r_[starts, len(x)])
  group = np.repeat(np.arange(len(sizes)), sizes)
  mean = np.add.reduceat(x, starts) / sizes
  x -= mean[group]
  spread = np.sqrt(np.add.reduceat(x * x, starts) / sizes)
  x /= np.where(spread > 0, spread, 1)[group]
  low, high = _fit(*_thin(x, starts, sizes))
  upper = _posterior(x, group, low, high)
  upper = np.where((high.centre < low.centre)[group], 1 - upper, upper)
  upper[x <= np.minimum(low.centre, high.centre)[group]] = 0
  upper[(spread <= 0)[group]] = 0
  out = np.empty(len(x))
  # The last bits of an exponential differ between processors.
  out[order] = np.rint(upper * 2.0**32) * 2.0**-32
  return out


def _thin(x, starts, sizes):
  """Reduces each large group to `FIT_VALUES` values at even ranks.

  Args:
    x: values, ascending in each group.
    starts, sizes: where each group begins in `x`, and its number of values.

  Returns:
    The values, their groups, and the starts and sizes of the reduced groups.
  """
  kept = np.minimum(sizes, FIT_VALUES)
  first = np.cumsum(kept) - kept
  group = np.repeat(np.arange(len(sizes)), kept)
  place = np.arange(len(group)) - first[group]
  place = ((2 * place + 1) * sizes[group]) // (2 * kept[group])
  return x[starts[group] + place], group, first, kept


def _fit(x, group, starts, sizes) -> tuple[_Component, _Component]:
  """Fits the lower and the upper component of every group by EM."""
  place = np.arange(len(x)) - starts[group]
  upper = (place >= 0.8 * sizes[group]).astype(np.float64)
  for _ in range(_STEPS):
    components = []
    for responsibility in (1 - upper, upper):
      weight = np.maximum(np.add.reduceat(responsibility, starts), 1e-9)
      centre = np.add.reduceat(responsibility * x, starts) / weight
      squares = responsibility * (x - centre[group]) ** 2
      width = np.sqrt(np.add.reduceat(squares, starts) / weight)
      width = np.maximum(width, _LEAST_WIDTH)
      components.append(_Component(np.log(weight / width), centre, width))
    low, high = components
    upper = _posterior(x, group, low, high)
  return low, high


def _posterior(x, group, low: _Component, high: _Component) -> np.ndarray:
  """Returns the probability of the upper component for each value."""
  log_odds = np.zeros(len(x))
  for sign, component in ((1, high), (-1, low)):
    scaled = (x - component.centre[group]) / component.width[group]
    log_odds += sign * (component.scale[group] - scaled**2 / 2)
  return 1 / (1 + np.exp(np.clip(-log_odds, -500, 500)))
