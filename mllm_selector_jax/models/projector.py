"""The two linear layers that turn patch features into token embeddings."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mllm_selector_jax.models.config import MllmConfig


def quick_gelu(x: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
  """The sigmoid approximation of GELU that CLIP was trained with."""
  return x * jax.nn.sigmoid(1.702 * x)


ACTIVATION_FNS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
  "quick_gelu": quick_gelu,
}


class Projector(nnx.Module):
  """Linear, activation, linear: from the vision width to the decoder width."""

  def __init__(self, config: MllmConfig, rngs: nnx.Rngs):
    width = config.decoder.width
    dtype = jnp.dtype(config.dtype)
    self.activation = config.projector_activation
    self.first = nnx.Linear(config.vision.width, width, dtype=dtype, rngs=rngs)
    self.second = nnx.Linear(width, width, dtype=dtype, rngs=rngs)

  def __call__(self, features: Float[jax.Array, "n W"]) -> Float[jax.Array, "n D"]:
    return self.second(ACTIVATION_FNS[self.activation](self.first(features)))
