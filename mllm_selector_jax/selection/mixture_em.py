"""Fits many mixtures of two Gaussians at once by EM, on the host in float64.

jax compiles a step of EM into one loop over the values, which takes half the time that
numpy takes for the exponentials alone. A block of mixtures is laid out as one column
for each, so that the sums of a column are the same whatever stands in the others.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mllm_selector_jax.selection.host_device import on_host

STEPS = 100  # the number of EM steps
LEAST_WIDTH = 0.02  # of a component


def fit_columns(
  x: Float[np.ndarray, "n g"], valid: Bool[np.ndarray, "n g"]
) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, "3 g"]]:
  """Fits two Gaussians to the values of each column.

  The top fifth of the values are the first upper component.

  Args:
    x: values of mean 0 and deviation 1, ascending in each column.
    valid: which of them count: the first ones of each column.

  Returns:
    The mean of the lower component; and the coefficients of 1, x and x^2 in the log
    odds of the upper one.
  """
  with on_host():
    centre, curve = _fit(np.where(valid, x, 0), valid.astype(np.float64))
    return np.asarray(centre), np.asarray(curve)


@jax.jit
def _fit(x, valid):
  place = jnp.arange(len(x))[:, None]
  upper = (place >= 0.8 * valid.sum(0, keepdims=True)).astype(x.dtype)

  def step(_, state):
    low, high = map(_describe, *_sum(x, valid, state[0]))
    curve = _log_odds(low, high)
    upper = 1 / (1 + jnp.exp(-((curve[2] * x + curve[1]) * x + curve[0])))
    return upper, jnp.concatenate([low[1], high[1]]), curve

  columns = x.shape[1]
  state = (upper, jnp.zeros((2, columns)), jnp.zeros((3, 1, columns)))
  _, centres, curve = jax.lax.fori_loop(0, STEPS, step, state)
  # What is called the upper component may have ended below the other.
  turned = (centres[1] < centres[0])[None]
  return centres.min(0), jnp.where(turned, -curve[:, 0], curve[:, 0])


def _sum(x, valid, upper):
  """Sums shares, shares times x and shares times x^2 of both components in one loop.

  Returns:
    Three pairs of sums, of the lower and the upper component, each of shape [1, g].
  """
  terms = []
  for share in (1 - upper, upper):
    share = share * valid
    terms += [share, share * x, share * x * x]

  def add(one, other):
    return tuple(a + b for a, b in zip(one, other, strict=True))

  sums = jax.lax.reduce(tuple(terms), (0.0,) * len(terms), add, (0,))
  return zip((s[None] for s in sums[:3]), (s[None] for s in sums[3:]), strict=True)


def _describe(total, first, second):
  """Returns log(weight / width), mean and variance, each of shape [1, g]."""
  weight = jnp.maximum(total, 1e-9)
  centre = first / weight
  variance = (second - 2 * centre * first + centre**2 * total) / weight
  variance = jnp.maximum(variance, LEAST_WIDTH**2)
  return jnp.log(weight) - jnp.log(variance) / 2, centre, variance


def _log_odds(low, high):
  """Returns the coefficients of 1, x and x^2 in the log odds of `high`."""
  (low_scale, low_centre, low_variance), (scale, centre, variance) = low, high
  return jnp.stack(
    [
      scale
      - low_scale
      - centre**2 / (2 * variance)
      + low_centre**2 / (2 * low_variance),
      centre / variance - low_centre / low_variance,
      1 / (2 * low_variance) - 1 / (2 * variance),
    ]
  )
