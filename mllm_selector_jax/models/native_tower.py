"""Towers of native resolution: the patches of images in their own sizes, in a row.

Those of Qwen-VL, Pixtral, GLM-4.1V and Gemma 4. An image is cut into tiles, squares of
as many patches as are merged into one feature. All tiles of a shard lie one after the
other, so do their patches, row by row in each. A patch sees those of its image, or of
its window of the image.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int, UInt8

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models import attention, stack
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.lora import find_adapter
from mllm_selector_jax.models.normed_block import NormedBlock
from mllm_selector_jax.models.norms import make_norm
from mllm_selector_jax.models.rotation import rotate
from mllm_selector_jax.models.vision import VisionBlock, cut_patches, normalise_pixels
from mllm_selector_jax.models.vision_config import VisionConfig

SHARPNESS = -0.75  # of cubic weights, as torch has it


class PatchPlaces:
  """Where the packed patches of each shard lie in their images.

  Attributes:
    images: the number of the patch's image in the shard, 0 where there is none.
    windows: a number of its own for each window of each image; 0 as above. Windows
      follow each other as their tiles do.
    rows, columns: of the patch in its image.
    heights, widths: patches along the sides of the image.
  """

  def __init__(self, places: Int[Array, "W M 5"], grid: int, window: int):
    """Finds the places of patches.

    Args:
      places: of tiles; see `types.Batch`.
      grid: patches along a tile's side.
      window: tiles along a window's side; 0 for windows as large as images.
    """
    shards, tiles, _ = places.shape
    number, row, column, height, width = jnp.moveaxis(jnp.asarray(places), -1, 0)
    inside = np.arange(grid**2, dtype=np.int32)

    def spread(of_tile, of_patch=None):
      of_patch = np.zeros_like(inside) if of_patch is None else of_patch
      return (of_tile[..., None] + of_patch[None, None]).reshape(shards, -1)

    self.images = spread(number)
    self.windows = self.images
    if window:
      along = -(-width // window)
      # An image has no more windows than there are tiles.
      place = row // window * along + column // window
      self.windows = spread(number * tiles + place)
    self.rows = spread(row * grid, inside // grid)
    self.columns = spread(column * grid, inside % grid)
    self.heights, self.widths = spread(height * grid), spread(width * grid)


def find_layouts(places: PatchPlaces, vision: VisionConfig) -> list[attention.Layout]:
  """Who sees whom in an image and, where there are windows, in a window."""
  # The order of patches means nothing without a causal mask.
  order = jnp.zeros_like(places.images)
  layouts = [attention.Layout(places.images, order, causal=False)]
  if vision.window:
    most = (vision.window * vision.grid) ** 2
    layouts.append(attention.Layout(places.windows, order, causal=False, longest=most))
  return layouts


def find_rotation(
  places: PatchPlaces, vision: VisionConfig, dtype=jnp.float32
) -> tuple[Float[Array, "W N 1 h"], Float[Array, "W N 1 h"]]:
  """Cosine and sine of the patches' angles, h = head_dim / 2.

  The first half of them turns with the row, the second with the column; or the other
  way round where these are the halves of a head (`VisionConfig.halves`).

  Args:
    places: of the patches.
    vision: of the tower.
    dtype: of the angles.
  """
  width = vision.head_dim
  waves = vision.theta ** -(np.arange(0, width, 2, dtype=np.float64) / width)
  of_rows, of_columns = waves[::2], waves[1::2] if vision.alternating else waves[::2]
  axes = [(places.rows, of_rows), (places.columns, of_columns)]
  if vision.halves:
    axes.reverse()
  turns = [
    axis.astype(dtype)[..., None] * jnp.asarray(own, dtype)[None, None]
    for axis, own in axes
  ]
  angles = jnp.concatenate(turns, axis=-1)
  return jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]


def turn(
  x: Float[Array, "W N H d"],
  cos: Float[Array, "W N 1 h"],
  sin: Float[Array, "W N 1 h"],
  halves: bool,
) -> Float[jax.Array, "W N H d"]:
  """Queries or keys, turned by the angles of `find_rotation`."""
  if not halves:
    return rotate(x, cos, sin)
  cut = zip(*(jnp.split(jnp.asarray(y), 2, -1) for y in (x, cos, sin)), strict=True)
  return jnp.concatenate([rotate(*half) for half in cut], axis=-1)


def _find_near(
  place: Int[jax.Array, "W N"], size: Int[jax.Array, "W N"], side: int, dtype
) -> list[tuple[Int[jax.Array, "W N"], Float[jax.Array, "W N"]]]:
  """The two rows of a table nearest to each place, and their weights.

  The first place of an image is the table's first row, the last one its last.
  """
  at = place.astype(dtype) * (side - 1) / jnp.maximum(size - 1, 1).astype(dtype)
  lower = jnp.floor(at)
  part = at - lower
  index = lower.astype(jnp.int32)
  return [(index, 1 - part), (jnp.minimum(index + 1, side - 1), part)]


def _find_cubic(
  place: Int[jax.Array, "W N"], size: Int[jax.Array, "W N"], side: int, dtype
) -> list[tuple[Int[jax.Array, "W N"], Float[jax.Array, "W N"]]]:
  """The four rows of a table nearest to each place, and their weights.

  Places and rows are taken for squares of which the image's and the table's sides are
  made, as those of pixels; beyond the table's ends it has its first and its last row.
  The weights are Keys's (1981, "Cubic convolution interpolation").
  """
  at = (place.astype(dtype) + 0.5) * side / jnp.maximum(size, 1).astype(dtype) - 0.5
  lower = jnp.floor(at)
  taps = []
  for step in (-1, 0, 1, 2):
    far = jnp.abs(at - lower - step)
    near = ((SHARPNESS + 2) * far - (SHARPNESS + 3)) * far**2 + 1
    beyond = SHARPNESS * (((far - 5) * far + 8) * far - 4)
    index = jnp.clip(lower.astype(jnp.int32) + step, 0, side - 1)
    taps.append((index, jnp.where(far <= 1, near, beyond)))
  return taps


def interpolate_positions(
  table: Float[Array, "n C"], places: PatchPlaces, side: int, bicubic: bool = False
) -> Float[Array, "W N C"]:
  """The learned positions of a square table, stretched over each image."""
  dtype = jnp.promote_types(table.dtype, jnp.float32)
  find = _find_cubic if bicubic else _find_near
  total = jnp.zeros((*places.rows.shape, table.shape[-1]), dtype)
  for row, weight in find(places.rows, places.heights, side, dtype):
    for column, other in find(places.columns, places.widths, side, dtype):
      picked = jnp.take(jnp.asarray(table), row * side + column, axis=0, mode="clip")
      total = total + picked * (weight * other)[..., None]
  return total


class PatchEmbedding(nnx.Module):
  """One product a patch, whose kernel reaches over several frames of a video.

  A still image stands in all frames, so that the sum of their kernels is what counts.
  """

  def __init__(self, vision: VisionConfig, dtype, rngs: nnx.Rngs):
    del rngs  # drawn elsewhere, as all parameters
    self.frames, self.dtype = vision.frames, dtype
    pixels = vision.frames * 3 * vision.patch_size**2
    self.kernel = nnx.Param(jnp.zeros((pixels, vision.width)))
    if vision.patch_bias:
      self.bias = nnx.Param(jnp.zeros(vision.width))

  def __call__(self, patches: Float[Array, "n c"]) -> Float[jax.Array, "n C"]:
    kernel = self.kernel[...].reshape(self.frames, patches.shape[1], -1).sum(axis=0)
    x = jnp.dot(patches.astype(self.dtype), kernel.astype(self.dtype))
    if hasattr(self, "bias"):
      x = x + self.bias[...].astype(self.dtype)[None]
    return x


class NativeTower(nnx.Module):
  """Patches, and their learned positions where there are some, through all layers."""

  def __init__(self, config: MllmConfig, rngs: nnx.Rngs):
    vision = config.vision
    dtype = jnp.dtype(config.dtype)
    lora = find_adapter(config, "tower")
    self.config = config
    self.patch_embedding = PatchEmbedding(vision, dtype, rngs)
    if vision.position_side:
      self.position_embedding = nnx.Param(
        jnp.zeros((vision.position_side**2, vision.width))
      )

    if vision.position_table:
      self.position_table = nnx.Param(
        jnp.zeros((2, vision.position_table, vision.width))
      )
    if vision.standardized:
      self.standard_bias = nnx.Param(jnp.zeros(vision.width))
      self.standard_scale = nnx.Param(jnp.ones(vision.width))
    block = NormedBlock if vision.post_norms else VisionBlock

    def norm():
      return make_norm(vision.norm, vision.width, vision.epsilon, dtype, rngs)

    if vision.pre_norm:
      self.pre_norm = norm()
    if vision.post_norm:
      self.post_norm = norm()
    self.layers = stack.make_layers(
      lambda rngs: block(vision, lora, dtype, rngs), vision.layers, rngs
    )

  def __call__(
    self, images: UInt8[Array, "W M S S 3"], places: Int[Array, "W M 5"]
  ) -> tuple[Float[jax.Array, "W N C"], Float[jax.Array, "n W N C"]]:
    """Reads the tiles of each shard.

    Args:
      images: the tiles.
      places: where they lie in which image; see `types.Batch`.

    Returns:
      What leaves the last layer or the final norm, of all patches, N = 4 M for tiles of
      four patches; and the states that `MllmConfig.deepstack` asks for.
    """
    config, vision = self.config, self.config.vision
    dtype = jnp.dtype(config.dtype)
    wide = jnp.promote_types(dtype, jnp.float32)
    where = PatchPlaces(places, vision.grid, vision.window)
    tiles = images.reshape(-1, *images.shape[2:])
    pixels = normalise_pixels(tiles, config.image_mean, config.image_std, wide)
    patches = cut_patches(pixels, vision.patch_size)
    x = self.patch_embedding(patches.reshape(-1, patches.shape[-1]))
    x = x.reshape(*where.images.shape, vision.width)
    if vision.pre_norm:
      x = self.pre_norm(x)
    if vision.position_side:
      side, bicubic = vision.position_side, vision.bicubic
      table = self.position_embedding[...]
      x = x + interpolate_positions(table, where, side, bicubic).astype(dtype)
    if vision.position_table:
      of_columns, of_rows = self.position_table[...]
      for table, place in ((of_columns, where.columns), (of_rows, where.rows)):
        x = x + jnp.take(table, place, axis=0, mode="clip").astype(dtype)
    cos, sin = find_rotation(where, vision, wide)
    crossed = np.zeros(vision.layers, bool)
    crossed[list(vision.global_layers)] = True
    attend_image, *attend_windows = (
      attention.make_attend(config.attention, layout)
      for layout in find_layouts(where, vision)
    )

    def call(layer, x, number):
      def attend(query, key, value):
        turned = (*(turn(y, cos, sin, vision.halves) for y in (query, key)), value)
        if not attend_windows:
          return attend_image(*turned)
        # Layers of one kind run in one loop; each runs one of the two.
        return jax.lax.cond(
          jnp.asarray(crossed)[number], attend_image, attend_windows[0], *turned
        )

      return layer(x, attend)

    kept = [state - 1 for state in config.deepstack]
    x, states = stack.run_numbered(self.layers, x, call, kept, remat=config.remat)
    if vision.standardized is not None:
      x = self._standardize(x.astype(wide)).astype(dtype)
    return self.post_norm(x) if config.feature_norm else x, states

  def _standardize(self, x: Float[jax.Array, "W N C"]) -> Float[jax.Array, "W N C"]:
    """Features as their mean is projected, by constants that are never trained."""
    x = x * self.config.vision.width**0.5
    if not self.config.vision.standardized:
      return x
    bias, scale = (
      jax.lax.stop_gradient(part[...]).astype(x.dtype)[None, None]
      for part in (self.standard_bias, self.standard_scale)
    )
    return (x - bias) * scale
