"""The norms of towers, projectors and decoders."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mllm_selector_jax.arrays import Array


class OffsetRMSNorm(nnx.RMSNorm):
  """An RMS norm that multiplies by 1 + scale (Gemma), so that a scale of 0 is plain.

  As in transformers, the product is rounded to the compute type, and not its factors.
  """

  def __call__(
    self, x: Float[Array, "... D"], mask: jax.Array | None = None
  ) -> Float[jax.Array, "... D"]:
    assert mask is None and self.scale is not None, (
      "all channels are normed, and scaled"
    )
    dtype = self.dtype or x.dtype
    wide = jnp.promote_types(dtype, jnp.float32)
    x = x.astype(wide)
    square = jnp.square(x).mean(-1, keepdims=True)
    scale = 1 + self.scale[...].astype(wide)
    scale = scale.reshape((1,) * (x.ndim - 1) + scale.shape)
    normed = x * jax.lax.rsqrt(square + self.epsilon) * scale
    return jnp.asarray(normed, dtype)


def _make_layer_norm(width: int, epsilon: float, dtype, rngs: nnx.Rngs) -> nnx.Module:
  # The fast variance E[x^2] - E[x]^2 cancels in float32.
  return nnx.LayerNorm(
    width, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs
  )


def _make_rms_norm(width: int, epsilon: float, dtype, rngs: nnx.Rngs) -> nnx.Module:
  return nnx.RMSNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)


def _make_offset_norm(width: int, epsilon: float, dtype, rngs: nnx.Rngs) -> nnx.Module:
  return OffsetRMSNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)


def _make_bare_norm(width: int, epsilon: float, dtype, rngs: nnx.Rngs) -> nnx.Module:
  kind = {"epsilon": epsilon, "dtype": dtype, "use_scale": False, "rngs": rngs}
  return nnx.RMSNorm(width, **kind)


# By the names of `config_checks.NORMS`.
_NORMS: dict[str, Callable[..., nnx.Module]] = {
  "layer_norm": _make_layer_norm,
  "rms_norm": _make_rms_norm,
  "offset_rms_norm": _make_offset_norm,
  "bare_rms_norm": _make_bare_norm,
}


def make_norm(
  kind: str, width: int, epsilon: float, dtype, rngs: nnx.Rngs
) -> nnx.Module:
  """A norm over the last axis.

  Args:
    kind: one of `config_checks.NORMS`.
    width: of that axis.
    epsilon: added to the variance, or to the mean square.
    dtype: of the result; the norm itself is computed in float32 or better.
    rngs: of the parameters.
  """
  return _NORMS[kind](width, epsilon, dtype, rngs)
