"""The images of one base model: its form, bound to its options and token ids."""

import dataclasses
import functools

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mllm_selector_jax.data.images.image_forms.forms import FORMS
from mllm_selector_jax.types import ImageLayout, ImageOptions, ImageTokens

MOST_LAYOUTS = 65_536  # that are remembered, by size of the image


@dataclasses.dataclass(frozen=True)
class BaseImages:
  """How a base model's images become tiles and tokens.

  Attributes:
    options: how the model family prepares images.
    tokens: the ids that stand for an image.
  """

  options: ImageOptions
  tokens: ImageTokens

  @property
  def leads(self) -> bool:
    """Whether the only image of a question stands before its text."""
    return FORMS[self.options.form].leads

  @property
  def is_fixed(self) -> bool:
    """Whether an image's layout does not depend on its size."""
    return self.options.form == "square"

  def is_several(self, images: int) -> bool:
    """Whether images are prepared otherwise than the only one of a row would be."""
    return images > 1 and not self.options.tile_several

  def lay_out(self, width: int, height: int, images: int = 1) -> ImageLayout:
    """What an image of this size becomes in a row of tokens.

    Args:
      width, height: in pixels, after the EXIF rotation if `options.rotate`.
      images: the number of images in the row.
    """
    several = self.is_several(images)
    return _lay_out(self.options, self.tokens, width, height, several)

  def cut_tiles(
    self, image: Image.Image, images: int = 1
  ) -> UInt8[np.ndarray, "t S S 3"]:
    """The squares that the vision tower reads, not yet normalised.

    Args:
      image: RGB, after the EXIF rotation if `options.rotate`.
      images: the number of images in the row.
    """
    several = self.is_several(images)
    return FORMS[self.options.form].cut_tiles(self.options, image, 1 + several)


@functools.lru_cache(maxsize=MOST_LAYOUTS)
def _lay_out(
  options: ImageOptions, tokens: ImageTokens, width: int, height: int, several: bool
) -> ImageLayout:
  form = FORMS[options.form]
  return form.lay_out(options, tokens, width, height, 1 + several)
