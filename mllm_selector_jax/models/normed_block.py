"""The layers of Gemma 4's vision tower."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models import attention
from mllm_selector_jax.models.activations import ACTIVATION_FNS
from mllm_selector_jax.models.lora import make_linear
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.models.norms import make_norm
from mllm_selector_jax.models.vision_config import BOUND_NAMES, VisionConfig

LINEAR = ("query", "key", "value", "out", "gate", "up", "down")


class Bounds(nnx.Module):
  """Constants between which a linear layer reads and gives; they are never trained."""

  def __init__(self, rngs: nnx.Rngs):
    del rngs  # drawn elsewhere, as all parameters
    for name in BOUND_NAMES:
      setattr(self, name, nnx.Param(jnp.zeros(())))

  def clip(self, x: Float[Array, "n c"], side: str) -> Float[jax.Array, "n c"]:
    """What is read ("input") or given ("output"), between the two of its side."""
    least, most = (
      jax.lax.stop_gradient(getattr(self, f"{side}_{end}")[...]).astype(x.dtype)
      for end in ("min", "max")
    )
    return jax.lax.clamp(least, jnp.asarray(x), most)


class NormedBlock(nnx.Module):
  """Attention, then a gated MLP, each between two norms.

  Each head's query and key pass a norm, and its value one without weights. Scores are
  not divided by the root of the head's width. Linear layers may clip what passes them.
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
    if config.clipped:
      for name in LINEAR:
        setattr(self, f"{name}_bounds", Bounds(rngs))

  def _apply(self, name: str, x: Float[Array, "n c"]) -> jax.Array:
    """One of the linear layers, between its bounds if there are any."""
    layer = getattr(self, name)
    if not self.config.clipped:
      return layer(x)
    bounds = getattr(self, f"{name}_bounds")
    return bounds.clip(layer(bounds.clip(x, "input")), "output")

  def __call__(
    self, x: Float[jax.Array, "N P W"], attend: attention.Attend
  ) -> Float[jax.Array, "N P W"]:
    config = self.config
    split = (*x.shape[:2], config.heads, config.head_dim)
    flat = x.reshape(-1, config.width)
    normed = self.attention_norm(flat)
    query, key, value = (
      getattr(self, f"{name}_norm")(self._apply(name, normed).reshape(split))
      for name in ("query", "key", "value")
    )
    mixed = attend(query * config.head_dim**0.5, key, value)
    added = self._apply("out", jnp.asarray(mixed).reshape(flat.shape))
    flat = flat + self.attention_post_norm(added)
    normed = self.mlp_norm(flat)
    gate = ACTIVATION_FNS[config.activation](self._apply("gate", normed))
    added = self._apply("down", gate * self._apply("up", normed))
    return (flat + self.mlp_post_norm(added)).reshape(x.shape)
