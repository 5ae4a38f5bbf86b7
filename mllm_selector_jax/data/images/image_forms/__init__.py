"""Images to tiles and tokens, in the forms of the model families.

A form says how an image is cut into the square tiles that the vision tower reads,
and how the tiles' features are laid into the row of tokens. Only an image's size,
and the number of images in its row, decide the layout.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mllm_selector_jax.data.images.image_forms.base_images import BaseImages
from mllm_selector_jax.data.images.image_forms.forms import FORMS
from mllm_selector_jax.types import NEWLINE, ImageLayout, ImageOptions, ImageTokens

__all__ = [
  "FORMS", "NEWLINE", "BaseImages", "ImageLayout", "ImageTokens", "cut_tiles",
  "lay_out",
]  # fmt: skip


def lay_out(
  options: ImageOptions, tokens: ImageTokens, width: int, height: int, images: int
) -> ImageLayout:
  """What an image of this size becomes in a row of tokens.

  Args:
    options: how the model family prepares images.
    tokens: ids that stand for an image.
    width, height: in pixels, after the EXIF rotation if `options.rotate`.
    images: the number of images in the row.
  """
  return FORMS[options.form].lay_out(options, tokens, width, height, images)


def cut_tiles(
  options: ImageOptions, image: Image.Image, images: int
) -> UInt8[np.ndarray, "t S S 3"]:
  """The squares that the vision tower reads of an RGB image, not yet normalised.

  Args:
    options: how the model family prepares images.
    image: RGB, after the EXIF rotation if `options.rotate`.
    images: the number of images in the row.
  """
  return FORMS[options.form].cut_tiles(options, image, images)
