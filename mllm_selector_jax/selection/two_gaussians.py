"""Two Gaussians a group: which values belong to the upper hump."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.sorting import float_key, sort_rows

MOST = 512  # values of a group that a mixture is fitted to, evenly over their ranks
_STEPS = 100  # of EM
_LEAST_SPREAD = 0.02  # of a component, as a share of its group's


class _Component(NamedTuple):
  """One Gaussian a group: log of weight over width, mean, and width."""

  scale: Float[np.ndarray, " G"]
  centre: Float[np.ndarray, " G"]
  width: Float[np.ndarray, " G"]


def upper_component(
  values: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
  """The probability of belonging to the upper of two Gaussians of the row's group.

  Maximum likelihood by EM (Dempster, Laird and Rubin 1977) from the top fifth of
  each group, over at most `MOST` of its values; the order of rows is no matter. 0
  below the lower component's mean, and where the group's values are equal.

  Args:
    values: finite.
    groups: from 0.
  """
  order = sort_rows(float_key(values), groups)  # sums do not depend on rows' order
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
  """Of each large group the values in the middle of `MOST` equal shares of it."""
  kept = np.minimum(sizes, MOST)
  first = np.cumsum(kept) - kept
  group = np.repeat(np.arange(len(sizes)), kept)
  place = np.arange(len(group)) - first[group]
  place = ((2 * place + 1) * sizes[group]) // (2 * kept[group])
  return x[starts[group] + place], group, first, kept


def _fit(x, group, starts, sizes) -> tuple[_Component, _Component]:
  place = np.arange(len(x)) - starts[group]
  upper = (place >= 0.8 * sizes[group]).astype(np.float64)
  for _ in range(_STEPS):
    found = []
    for own in (1 - upper, upper):
      weight = np.maximum(np.add.reduceat(own, starts), 1e-9)
      centre = np.add.reduceat(own * x, starts) / weight
      width = np.add.reduceat(own * (x - centre[group]) ** 2, starts) / weight
      width = np.maximum(np.sqrt(width), _LEAST_SPREAD)
      found.append(_Component(np.log(weight / width), centre, width))
    low, high = found
    upper = _posterior(x, group, low, high)
  return low, high


def _posterior(x, group, low: _Component, high: _Component) -> np.ndarray:
  log_odds = np.zeros(len(x))
  for sign, each in ((1, high), (-1, low)):
    scaled = (x - each.centre[group]) / each.width[group]
    log_odds += sign * (each.scale[group] - scaled**2 / 2)
  return 1 / (1 + np.exp(np.clip(-log_odds, -500, 500)))
