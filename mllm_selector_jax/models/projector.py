"""From the vision tower's features to token embeddings: merging and projecting."""

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


def merge_patches(
  features: Float[jax.Array, "N P W"], side: int
) -> Float[jax.Array, "N P2 W2"]:
  """Joins the channels of each square block of `side` x `side` features.

  Both a block's features and the blocks are in order row by row.
  """
  count, places, width = features.shape
  grid = round(places**0.5)
  blocks = grid // side
  cut = features.reshape(count, blocks, side, blocks, side, width)
  cut = cut.transpose(0, 1, 3, 2, 4, 5)
  return cut.reshape(count, blocks * blocks, side * side * width)


class Projector(nnx.Module):
  """Linear, activation, linear, after a norm or without one.

  It also holds the vector that ends a row of features, where the model has one.
  """

  def __init__(self, config: MllmConfig, rngs: nnx.Rngs):
    width = config.decoder.width
    dtype = jnp.dtype(config.dtype)
    self.activation = config.projector_activation
    if config.projector_norm:
      self.norm = nnx.LayerNorm(
        config.projected_width,
        epsilon=config.projector_epsilon,
        dtype=dtype,
        use_fast_variance=False,
        rngs=rngs,
      )
    self.first = nnx.Linear(config.projected_width, width, dtype=dtype, rngs=rngs)
    self.second = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
    if config.newline:
      self.newline = nnx.Param(jnp.zeros(width))

  def __call__(self, features: Float[jax.Array, "n W"]) -> Float[jax.Array, "n D"]:
    if hasattr(self, "norm"):
      features = self.norm(features)
    return self.second(ACTIVATION_FNS[self.activation](self.first(features)))
