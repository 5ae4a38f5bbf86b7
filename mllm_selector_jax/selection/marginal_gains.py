"""Computes the gain of each row in the objective of `kl`, on the host in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mllm_selector_jax.selection.host_device import on_host
from mllm_selector_jax.selection.objective import GroupOrder

GAIN_BITS = 40  # fractional bits to which gains are rounded, for lambda up to 1
_MOST_ROWS = 1 << 20  # computed at a time


@jax.jit
def _gains(values, log_share, place, kl_weight, scale):
  n = place.astype(jnp.float64)
  # n log n - (n - 1) log(n - 1) = log n - (n - 1) log(1 - 1/n), without cancellation.
  correction = (n - 1) * jnp.log1p(-1 / jnp.maximum(n, 2))
  cost = jnp.where(n > 1, jnp.log(n) - correction, 0.0)
  allowed = log_share > -jnp.inf
  gain = values + kl_weight * (jnp.where(allowed, log_share, 0.0) - cost)
  return jnp.where(allowed, jnp.round(gain * scale) / scale, -jnp.inf)


def gains(
  values: Float[np.ndarray, " N"],
  order: GroupOrder,
  shares: Float[np.ndarray, " G"],
  kl_weight: float,
) -> Float[np.ndarray, " N"]:
  """Computes the gain of each row without its term lambda log B.

  Gains are computed in float64 on the host, and rounded to multiples of 2^-40 (of a
  larger power of two, if lambda is above 1). Otherwise gains that are equal in exact
  arithmetic would be ordered by the last bit of a logarithm, which differs between
  processors.

  Args:
    values: the values v, of magnitude about 1, aligned with `order.rows`; in each
      group they must never increase.
    order: from `order_rows`.
    shares: the target shares q; rows of a group of share 0 have gain -inf.
    kl_weight: lambda.

  Returns:
    The gains, aligned with `order.rows`.
  """
  with np.errstate(divide="ignore"):
    log_share = np.log(shares)
  bits = GAIN_BITS - max(0, math.ceil(math.log2(max(kl_weight, 1))))
  out = np.empty(len(values))
  with on_host():
    for start in range(0, len(values), _MOST_ROWS):
      part = slice(start, start + _MOST_ROWS)
      # The part of each group that lies in this part of the order.
      starts = np.clip(order.starts, start, start + len(values[part]))
      sizes = np.diff(starts)
      place = np.arange(1, sizes.sum() + 1) + start
      place -= np.repeat(order.starts[:-1], sizes)
      columns = (values[part], np.repeat(log_share, sizes), place)
      gain = _gains(*map(_pad, columns), float(kl_weight), 2.0**bits)
      out[part] = np.asarray(gain)[: len(place)]
  return out


def _pad(x: np.ndarray) -> Float[np.ndarray, " n"]:
  """Repeats the last value up to a power of two, so that few sizes are compiled."""
  count = 1 << max(4, (len(x) - 1).bit_length())
  return np.pad(x, (0, count - len(x)), mode="edge").astype(np.float64)
