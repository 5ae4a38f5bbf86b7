"""GLM-4.1V's projector, which ends with a gated MLP."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mllm_selector_jax.models.activations import ACTIVATION_FNS
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.lora import find_adapter, make_linear
from mllm_selector_jax.models.norms import make_norm
from mllm_selector_jax.models.projector import merge_patches


class GatedProjector(nnx.Module):
  """Merges the patches of a tile: two linear layers, a norm, a GELU, a gated MLP.

  The first layer is a convolution in transformers, and has no adapter.
  """

  def __init__(self, config: MllmConfig, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    width = config.decoder.width
    inner = config.projector_width or width
    self.merge, self.activation = config.merge, config.projector_activation
    lora = find_adapter(config, "projector")

    def linear(inputs, outputs):
      kind = {"use_bias": False, "dtype": dtype, "rngs": rngs}
      return make_linear(inputs, outputs, lora, **kind)

    self.first = nnx.Linear(config.merged_width, width, dtype=dtype, rngs=rngs)
    self.second = linear(width, width)
    self.norm = make_norm("layer_norm", width, config.projector_epsilon, dtype, rngs)
    self.gate = linear(width, inner)
    self.up = linear(width, inner)
    self.down = linear(inner, width)

  def __call__(self, features: Float[jax.Array, "N P W"]) -> Float[jax.Array, "N P2 D"]:
    merged = merge_patches(features, self.merge)
    flat = merged.reshape(-1, merged.shape[-1])
    normed = self.norm(self.second(self.first(flat)))
    hidden = ACTIVATION_FNS["gelu"](normed)
    gate = ACTIVATION_FNS[self.activation](self.gate(hidden))
    return self.down(gate * self.up(hidden)).reshape(*merged.shape[:2], -1)
