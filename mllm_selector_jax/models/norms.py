"""The norms of the vision tower and of the projector."""

from collections.abc import Callable

from flax import nnx


def _make_layer_norm(width: int, epsilon: float, dtype, rngs: nnx.Rngs) -> nnx.Module:
  # The fast variance E[x^2] - E[x]^2 cancels in float32.
  return nnx.LayerNorm(
    width, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs
  )


def _make_rms_norm(width: int, epsilon: float, dtype, rngs: nnx.Rngs) -> nnx.Module:
  return nnx.RMSNorm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)


# By the names of `config.NORMS`.
_NORMS: dict[str, Callable[..., nnx.Module]] = {
  "layer_norm": _make_layer_norm,
  "rms_norm": _make_rms_norm,
}


def make_norm(
  kind: str, width: int, epsilon: float, dtype, rngs: nnx.Rngs
) -> nnx.Module:
  """A norm over the last axis.

  Args:
    kind: one of `config.NORMS`.
    width: of that axis.
    epsilon: added to the variance, or to the mean square.
    dtype: of the result; the norm itself is computed in float32 or better.
    rngs: of the parameters.
  """
  return _NORMS[kind](width, epsilon, dtype, rngs)
