"""Embeddings of tokens that each layer of a decoder has of its own.

A table has a row for each token, with a part for each layer (Gemma 4 E2B, E4B). To it
is added what a matrix makes of the token's embedding, or of an image's feature.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.norms import make_norm


class InputTable(nnx.Module):
  """The table, the matrix, and the norm of what the matrix gives."""

  def __init__(self, config: DecoderConfig, dtype, rngs: nnx.Rngs):
    inputs = config.layer_inputs
    assert inputs is not None, "the layers are given something"
    self.inputs, self.layers, self.dtype = inputs, config.layers, dtype
    channels = config.layers * inputs.width
    self.table = nnx.Param(jnp.zeros((inputs.vocab, channels)))
    kind = {"use_bias": False, "dtype": dtype, "rngs": rngs}
    self.projection = nnx.Linear(config.width, channels, **kind)
    self.norm = make_norm("rms_norm", inputs.width, config.epsilon, dtype, rngs)

  def __call__(
    self,
    tokens: Int[Array, "B L"],
    features: Bool[Array, "B L"],
    x: Float[Array, "B L D"],
  ) -> Float[jax.Array, "layers B L w"]:
    """What each layer is given.

    Args:
      tokens: ids.
      features: whether a feature of an image stands in a token's place.
      x: what enters the first layer.
    """
    inputs = self.inputs
    rows = jnp.where(features, inputs.padding, tokens)
    found = jnp.take(self.table[...], rows, axis=0, mode="clip").astype(self.dtype)
    padding = (rows == inputs.padding)[..., None]
    found = jnp.where(padding, jax.lax.stop_gradient(found), found)
    made = (
      self.projection(jnp.asarray(x).reshape(-1, x.shape[-1])) * x.shape[-1] ** -0.5
    )
    made = self.norm(made.reshape(-1, inputs.width))
    total = (made.reshape(found.shape) + found * inputs.width**0.5) * 2**-0.5
    parts = total.reshape(*tokens.shape, self.layers, inputs.width)
    return jnp.moveaxis(parts, 2, 0)
