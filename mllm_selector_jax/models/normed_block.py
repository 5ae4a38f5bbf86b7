"""The layers of Gemma 4's vision tower."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mllm_selector_jax.models import attention
from mllm_selector_jax.models.activations import ACTIVATION_FNS
from mllm_selector_jax.models.lora import make_linear
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.models.norms import make_norm
from mllm_selector_jax.models.vision_config import VisionConfig


class NormedBlock(nnx.Module):
  """Attention, then a gated MLP, each between two norms.

  Each head's query and key pass a norm, and its value one without weights. Scores are
  not divided by the root of the head's width.
  """

  def __init__(
    self, config: VisionConfig, lora: LoraConfig | None, dtype, rngs: nnx.Rngs
  ):
    width, head = config.width, config.head_dim
    self.config = config

    def norm(size=width, kind=config.norm):
      return make_norm(kind, size, config.epsilon, dtype, rngs)

    def linear(inputs, outputs):
      return make_linear(inputs, outputs, lora, use_bias=False, dtype=dtype, rngs=rngs)

    self.attention_norm, self.attention_post_norm = norm(), norm()
    self.query, self.key, self.value, self.out = (
      linear(width, width) for _ in range(4)
    )
    self.query_norm, self.key_norm = norm(head), norm(head)
    self.value_norm = norm(head, "bare_rms_norm")
    self.mlp_norm, self.mlp_post_norm = norm(), norm()
    self.gate, self.up = linear(width, config.mlp), linear(width, config.mlp)
    self.down = linear(config.mlp, width)

  def __call__(
    self, x: Float[jax.Array, "N P W"], attend: attention.Attend
  ) -> Float[jax.Array, "N P W"]:
    config = self.config
    split = (*x.shape[:2], config.heads, config.head_dim)
    flat = x.reshape(-1, config.width)
    normed = self.attention_norm(flat)
    query, key, value = (
      norm(layer(normed).reshape(split))
      for layer, norm in (
        (self.query, self.query_norm),
        (self.key, self.key_norm),
        (self.value, self.value_norm),
      )
    )
    mixed = attend(query * config.head_dim**0.5, key, value)
    added = self.out(jnp.asarray(mixed).reshape(flat.shape))
    flat = flat + self.attention_post_norm(added)
    normed = self.mlp_norm(flat)
    gate = ACTIVATION_FNS[config.activation](self.gate(normed))
    added = self.down(gate * self.up(normed))
    return (flat + self.mlp_post_norm(added)).reshape(x.shape)
