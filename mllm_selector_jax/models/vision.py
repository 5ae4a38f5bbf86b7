"""The vision tower: from uint8 images to patch features."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, UInt8

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models import attention, stack
from mllm_selector_jax.models.activations import ACTIVATION_FNS
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.lora import (
  apply_layers,
  find_adapter,
  make_linear,
  share_adapter,
)
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.models.norms import make_norm
from mllm_selector_jax.models.vision_config import VisionConfig

QK_EPSILON = 1e-6  # of InternViT's norms of queries and keys, which no config states


def normalise_pixels(
  images: UInt8[Array, "N S S 3"],
  mean: tuple[float, float, float],
  std: tuple[float, float, float],
  dtype=jnp.float32,
) -> Float[jax.Array, "N S S 3"]:
  """Pixels scaled to [0, 1], then standardised a channel; float32 or better."""
  centre = jnp.asarray(mean, dtype).reshape(1, 1, 1, 3)
  scale = jnp.asarray(std, dtype).reshape(1, 1, 1, 3)
  return jnp.subtract(images.astype(dtype) / 255.0, centre) / scale


def cut_patches(
  pixels: Float[Array, "N S S 3"], side: int
) -> Float[jax.Array, "N P {side}*{side}*3"]:
  """The square patches, row by row, each flattened as (row, column, channel).

  What is left beyond the last whole patch is cut off, as a strided convolution does.
  """
  count, size, _, channels = pixels.shape
  grid = size // side
  whole = jnp.asarray(pixels)[:, : grid * side, : grid * side]
  cut = whole.reshape(count, grid, side, grid, side, channels)
  patches = cut.transpose(0, 1, 3, 2, 4, 5)
  return patches.reshape(count, grid * grid, side * side * channels)


class VisionBlock(nnx.Module):
  """Attention over all patches, then an MLP, each after a norm."""

  def __init__(
    self, config: VisionConfig, lora: LoraConfig | None, dtype, rngs: nnx.Rngs
  ):
    width = config.width
    self.config = config

    def norm(kind=config.norm, epsilon=config.epsilon):
      return make_norm(kind, width, epsilon, dtype, rngs)

    self.attention_norm = norm()
    own = None if config.fused else lora
    kind = {"use_bias": config.qkv_bias, "dtype": dtype, "rngs": rngs}
    self.query = make_linear(width, width, own, **kind)
    self.key = make_linear(width, width, own, **kind)
    self.value = make_linear(width, width, own, **kind)
    if config.fused:
      share_adapter(self, "qkv", lora, dtype)
    if config.qk_norm:
      self.query_norm = norm("rms_norm", QK_EPSILON)
      self.key_norm = norm("rms_norm", QK_EPSILON)

    def linear(inputs, outputs):
      kind = {"use_bias": config.bias, "dtype": dtype, "rngs": rngs}
      return make_linear(inputs, outputs, lora, **kind)

    self.out = linear(width, width)
    self.mlp_norm = norm()
    if config.gated:
      self.gate = linear(width, config.mlp)
    self.up = linear(width, config.mlp)
    self.down = linear(config.mlp, width)
    if config.layer_scale:
      self.attention_scale = nnx.Param(jnp.ones(width))
      self.mlp_scale = nnx.Param(jnp.ones(width))

  def __call__(
    self, x: Float[jax.Array, "N P1 W"], attend: attention.Attend
  ) -> Float[jax.Array, "N P1 W"]:
    config = self.config
    count, length, width = x.shape
    split = (count, length, config.heads, width // config.heads)
    flat = x.reshape(-1, width)
    query, key, value = apply_layers(self, "qkv", self.attention_norm(flat))
    mixed = attend(
      self._norm_query(query).reshape(split),
      self._norm_key(key).reshape(split),
      value.reshape(split),
    )
    added = self.out(mixed.reshape(-1, width))
    if config.layer_scale:
      added = added * self.attention_scale[...].astype(added.dtype)[None]
    flat = flat + added
    normed = self.mlp_norm(flat)
    hidden = self.up(normed)
    if config.gated:
      hidden = ACTIVATION_FNS[config.activation](self.gate(normed)) * hidden
    else:
      hidden = ACTIVATION_FNS[config.activation](hidden)
    added = self.down(hidden)
    if config.layer_scale:
      added = added * self.mlp_scale[...].astype(added.dtype)[None]
    return (flat + added).reshape(x.shape)

  def _norm_query(self, query: Float[jax.Array, "n W"]) -> Float[jax.Array, "n W"]:
    return self.query_norm(query) if self.config.qk_norm else query

  def _norm_key(self, key: Float[jax.Array, "n W"]) -> Float[jax.Array, "n W"]:
    return self.key_norm(key) if self.config.qk_norm else key


class VisionTower(nnx.Module):
  """Patches, and a class token if there is one, through the encoder's first layers.

  The tower also holds what an exported model must have but what is never run: the
  layers after the last projected one, the mask token, and most often the final norm.
  """

  def __init__(self, config: MllmConfig, rngs: nnx.Rngs):
    vision = config.vision
    dtype = jnp.dtype(config.dtype)
    lora = find_adapter(config, "tower")
    self.config = config

    def norm():
      return make_norm("layer_norm", vision.width, vision.epsilon, dtype, rngs)

    if vision.class_token:
      self.class_embedding = nnx.Param(jnp.zeros(vision.width))
    if vision.mask_token:
      self.mask_embedding = nnx.Param(jnp.zeros(vision.width))
    self.patch_embedding = nnx.Linear(
      3 * vision.patch_size**2,
      vision.width,
      use_bias=vision.patch_bias,
      dtype=dtype,
      rngs=rngs,
    )
    self.position_embedding = nnx.Param(jnp.zeros((vision.positions, vision.width)))
    if vision.pre_norm:
      self.pre_norm = norm()
    self.layers = stack.make_layers(
      lambda rngs: VisionBlock(vision, lora, dtype, rngs), vision.layers, rngs
    )
    if vision.post_norm:
      self.post_norm = norm()

  def __call__(self, images: UInt8[Array, "N S S 3"]) -> Float[jax.Array, "N P W"]:
    config, vision = self.config, self.config.vision
    dtype = jnp.dtype(config.dtype)
    wide = jnp.promote_types(dtype, jnp.float32)
    pixels = normalise_pixels(images, config.image_mean, config.image_std, wide)
    patches = cut_patches(pixels, vision.patch_size)
    count = len(images)
    x = self.patch_embedding(patches.reshape(-1, patches.shape[-1]))
    x = x.reshape(count, -1, vision.width)
    if vision.class_token:
      first = self.class_embedding[...].astype(dtype)
      first = jnp.broadcast_to(first, (count, 1, vision.width))
      x = jnp.concatenate([first, x], axis=1)
    x = x + self.position_embedding[...].astype(dtype)[None]
    if vision.pre_norm:
      x = self.pre_norm(x)
    attend = attention.make_attend(config.attention, None)
    states, start = {}, 0
    for stop in sorted(set(config.projected_states)):
      x = stack.run_layers(
        self.layers, x, attend, start=start, stop=stop, remat=config.remat
      )
      states[stop], start = x, stop
    if len(config.projected_states) > 1:
      x = jnp.concatenate([states[n] for n in config.projected_states], axis=-1)
    if config.feature_norm:
      x = self.post_norm(x)
    return x[:, 1:] if config.select == "default" else x
