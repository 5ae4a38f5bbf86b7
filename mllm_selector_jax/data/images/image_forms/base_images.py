"""The images of one base model: its form, bound to its options and token ids."""

import dataclasses
import functools
import hashlib
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mllm_selector_jax.data.images import decoding
from mllm_selector_jax.data.images.image_forms.forms import FORMS
from mllm_selector_jax.data.images.image_forms.image_layout import ImageForm
from mllm_selector_jax.types import ImageLayout, ImageOptions, ImageTokens

MOST_LAYOUTS = 65_536  # that are remembered, by size of the image


class Saved(NamedTuple):
  """Tokens of an image that the limits of a run save.

  Attributes:
    by_tiles: because it is cut into fewer tiles.
    by_pixels: because it is made smaller before.
  """

  by_tiles: int
  by_pixels: int


@dataclasses.dataclass(frozen=True)
class BaseImages:
  """How a base model's images become tiles and tokens.

  Attributes:
    options: how the model family prepares images.
    tokens: the ids that stand for an image.
    max_tiles: into how many tiles an image is cut at most, one of the whole image not
      counted; None leaves it to the options.
    resize_pixels: larger images are first made smaller, to about so many pixels in the
      same shape. None leaves them. It is nothing to bases whose images all become one
      square. A form that resizes images itself takes it as a bound of its own, so that
      no image is resized twice.
  """

  options: ImageOptions
  tokens: ImageTokens
  max_tiles: int | None = None
  resize_pixels: int | None = None

  def __post_init__(self) -> None:
    _ = self.limited  # what the form cannot take is refused before an image is read

  @functools.cached_property
  def limited(self) -> ImageOptions:
    """The options with the limits that a form takes: of tiles, and of pixels.

    Raises:
      InputError: the form has no way to cut an image into so few tiles.
    """
    options, limit_pixels = self._tile_limited, self._form.limit_pixels
    if self.resize_pixels is None or limit_pixels is None:
      return options
    return limit_pixels(options, self.resize_pixels)

  @functools.cached_property
  def _tile_limited(self) -> ImageOptions:
    if self.max_tiles is None:
      return self.options
    return self._form.limit_tiles(self.options, self.max_tiles)

  @property
  def _form(self) -> ImageForm:
    return FORMS[self.options.form]

  @property
  def leads(self) -> bool:
    """Whether the only image of a question stands before its text."""
    return self._form.leads

  @property
  def is_fixed(self) -> bool:
    """Whether an image's layout does not depend on its size."""
    return not self._form.by_size

  def is_several(self, images: int) -> bool:
    """Whether images are prepared otherwise than the only one of a row would be."""
    return images > 1 and not self.options.tile_several

  def decode(self, data: bytes, max_pixels: int) -> Image.Image:
    """A file's bytes as the image that the other methods take.

    Args:
      data: the file's bytes.
      max_pixels: larger images are refused.

    Raises:
      RowError: as `decoding.decode_image` does.
    """
    return decoding.decode_image(
      data, max_pixels, rotate=self.options.rotate, pads=self._form.pads
    )

  def measure(self, data: bytes, max_pixels: int) -> tuple[int, int]:
    """Width and height of what `decode` gives, from the file's header."""
    return decoding.measure_image(
      data, max_pixels, rotate=self.options.rotate, pads=self._form.pads
    )

  def fit_size(self, width: int, height: int) -> tuple[int, int]:
    """The size of an image after `resize_pixels`, before the form sees it."""
    pixels, most = width * height, self.resize_pixels
    if most is None or pixels <= most or self.is_fixed or self._form.limit_pixels:
      return width, height
    scale = math.sqrt(most / pixels)
    return max(1, int(width * scale)), max(1, int(height * scale))

  def see_size(self, width: int, height: int) -> tuple[int, int]:
    """Width and height at which the model sees an image; arguments of `lay_out`.

    A form without a grid of its own may stretch, pad or cut the image further, but the
    families that have such a form do not count boxes in pixels.
    """
    rows, columns = self.lay_out(width, height).grid
    if rows:
      return columns * self.options.size, rows * self.options.size
    return self.fit_size(width, height)

  def lay_out(self, width: int, height: int, images: int = 1) -> ImageLayout:
    """What an image of this size becomes in a row of tokens.

    Args:
      width, height: in pixels, after the EXIF rotation if `options.rotate`.
      images: the number of images in the row.
    """
    size, several = self.fit_size(width, height), self.is_several(images)
    return _lay_out(self.limited, self.tokens, *size, several)

  def count_saved(self, width: int, height: int, images: int = 1) -> Saved:
    """Counts the tokens that the limits save of an image; arguments of `lay_out`."""
    several = self.is_several(images)
    free, fewer = (
      _lay_out(options, self.tokens, width, height, several)
      for options in (self.options, self._tile_limited)
    )
    fitted = self.lay_out(width, height, images)
    return Saved(
      len(free.tokens) - len(fewer.tokens), len(fewer.tokens) - len(fitted.tokens)
    )

  def cut_tiles(
    self, image: Image.Image, images: int = 1
  ) -> UInt8[np.ndarray, "t S S 3"]:
    """The squares that the vision tower reads, not yet normalised.

    Args:
      image: RGB, after the EXIF rotation if `options.rotate`.
      images: the number of images in the row.
    """
    size, several = self.fit_size(*image.size), self.is_several(images)
    if size != image.size:
      image = image.resize(size, self.options.resample)
    return self._form.cut_tiles(self.limited, image, 1 + several)

  def hash_pixels(self, image: Image.Image, images: int = 1) -> str:
    """A hash that is equal where the model reads the same of two images.

    Two images may have the same tiles and differ in how these lie, as white ones of
    exchanged sides do, so that the layout is hashed with the pixels.

    Args:
      image, images: of `cut_tiles`.
    """
    tiles = np.ascontiguousarray(self.cut_tiles(image, images))
    digest = hashlib.blake2b(tiles.data, digest_size=16)
    layout = self.lay_out(*image.size, images)
    count = len(layout.features)
    if layout.grid != (0, 0) or not np.array_equal(layout.features, np.arange(count)):
      for values in layout.features, layout.places:
        digest.update(np.ascontiguousarray(values, "<i4").data)
    return digest.hexdigest()


@functools.lru_cache(maxsize=MOST_LAYOUTS)
def _lay_out(
  options: ImageOptions, tokens: ImageTokens, width: int, height: int, several: bool
) -> ImageLayout:
  form = FORMS[options.form]
  return form.lay_out(options, tokens, width, height, 1 + several)
