"""The vision tower, CLIP's or SigLIP's: from uint8 images to patch features."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from mllm_selector_jax.models import attention, stack
from mllm_selector_jax.models.config import MllmConfig, VisionConfig
from mllm_selector_jax.models.projector import ACTIVATION_FNS


def normalise_pixels(
  images: UInt8[Array, "N S S 3"],
  mean: tuple[float, float, float],
  std: tuple[float, float, float],
  dtype=jnp.float32,
) -> Float[Array, "N S S 3"]:
  """Pixels scaled to [0, 1], then standardised a channel; float32 or better."""
  mean = jnp.asarray(mean, dtype).reshape(1, 1, 1, 3)
  std = jnp.asarray(std, dtype).reshape(1, 1, 1, 3)
  return (images.astype(dtype) / 255.0 - mean) / std


def cut_patches(
  pixels: Float[Array, "N S S 3"], side: int
) -> Float[Array, "N P side*side*3"]:
  """The square patches, row by row, each flattened as (row, column, channel).

  What is left beyond the last whole patch is cut off, as a strided convolution does.
  """
  count, size, _, channels = pixels.shape
  grid = size // side
  pixels = pixels[:, : grid * side, : grid * side]
  pixels = pixels.reshape(count, grid, side, grid, side, channels)
  pixels = pixels.transpose(0, 1, 3, 2, 4, 5)
  return pixels.reshape(count, grid * grid, side * side * channels)


def _norm(width: int, epsilon: float, dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
  # The fast variance E[x^2] - E[x]^2 cancels in float32.
  return nnx.LayerNorm(
    width, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs
  )


class VisionBlock(nnx.Module):
  """Attention over all patches, then an MLP, each after a layer norm."""

  def __init__(self, config: VisionConfig, dtype, rngs: nnx.Rngs):
    width = config.width
    self.heads = config.heads
    self.activation = config.activation
    self.attention_norm = _norm(width, config.epsilon, dtype, rngs)
    self.query = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
    self.key = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
    self.value = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
    self.out = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
    self.mlp_norm = _norm(width, config.epsilon, dtype, rngs)
    self.up = nnx.Linear(width, config.mlp, dtype=dtype, rngs=rngs)
    self.down = nnx.Linear(config.mlp, width, dtype=dtype, rngs=rngs)

  def __call__(
    self, x: Float[Array, "N P1 W"], attend: attention.Attend
  ) -> Float[Array, "N P1 W"]:
    count, length, width = x.shape
    split = (count, length, self.heads, width // self.heads)
    flat = x.reshape(-1, width)
    normed = self.attention_norm(flat)
    mixed = attend(
      self.query(normed).reshape(split),
      self.key(normed).reshape(split),
      self.value(normed).reshape(split),
    )
    flat = flat + self.out(mixed.reshape(-1, width))
    hidden = ACTIVATION_FNS[self.activation](self.up(self.mlp_norm(flat)))
    return (flat + self.down(hidden)).reshape(x.shape)


class VisionTower(nnx.Module):
  """Patches, and CLIP's class token, through the encoder's first layers.

  The layers after the projected one and the final norm are held, so that an
  exported model is whole, but never run.
  """

  def __init__(self, config: MllmConfig, rngs: nnx.Rngs):
    vision = config.vision
    dtype = jnp.dtype(config.dtype)
    self.config = config
    if vision.class_token:
      self.class_embedding = nnx.Param(jnp.zeros(vision.width))
    self.patch_embedding = nnx.Linear(
      3 * vision.patch_size**2,
      vision.width,
      use_bias=vision.patch_bias,
      dtype=dtype,
      rngs=rngs,
    )
    self.position_embedding = nnx.Param(jnp.zeros((vision.positions, vision.width)))
    if vision.pre_norm:
      self.pre_norm = _norm(vision.width, vision.epsilon, dtype, rngs)
    self.layers = stack.make_layers(
      lambda rngs: VisionBlock(vision, dtype, rngs), vision.layers, rngs
    )
    self.post_norm = _norm(vision.width, vision.epsilon, dtype, rngs)

  def __call__(self, images: UInt8[Array, "N S S 3"]) -> Float[Array, "N P W"]:
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
    x = stack.run_layers(
      self.layers, x, attend, count=config.vision_layers, remat=config.remat
    )
    return x[:, 1:] if config.select == "default" else x
