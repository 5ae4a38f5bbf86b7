"""LLaVA-1.5's form: an image is one padded or cropped square."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mllm_selector_jax.data.images.image_forms.image_layout import (
  ImageForm,
  count_features,
  make_layout,
)
from mllm_selector_jax.types import ImageLayout, ImageOptions, ImageTokens


def to_pixels(image: Image.Image, options: ImageOptions) -> UInt8[np.ndarray, "S S 3"]:
  """The square of pixels that the vision tower reads, not yet normalised.

  With `pad`, as LLaVA-1.5: a centred square of the background, resized. Otherwise
  as CLIP: the shorter side resized, the centre cropped.
  """
  size, (width, height) = options.size, image.size
  if options.pad:
    if width != height:
      side = max(width, height)
      square = Image.new("RGB", (side, side), options.background)
      square.paste(image, ((side - width) // 2, (side - height) // 2))
      image = square
    image = image.resize((size, size), options.resample)
  else:
    short, long = sorted((width, height))
    longer = int(size * long / short)
    image = image.resize(
      (size, longer) if width <= height else (longer, size), options.resample
    )
    left, top = (image.width - size) // 2, (image.height - size) // 2
    image = image.crop((left, top, left + size, top + size))
  return np.asarray(image)


def lay_out_square(
  options: ImageOptions, tokens: ImageTokens, width: int, height: int, images: int
) -> ImageLayout:
  """All features of the one tile, whatever the image's size."""
  return make_layout(tokens, 1, np.arange(count_features(options)))


def cut_square(
  options: ImageOptions, image: Image.Image, images: int
) -> UInt8[np.ndarray, "1 S S 3"]:
  """The one tile of an image."""
  return to_pixels(image, options)[None]


SQUARE = ImageForm(lay_out_square, cut_square, by_size=False)
