"""The form of Gemma 4: an image in its own proportions, of about as many pixels always.

It is enlarged or made smaller to as many whole tiles as a bound allows. A tile is a
small square that gives one feature.
"""

import dataclasses
import math

from mllm_selector_jax.data.images.image_forms.native_form import make_form
from mllm_selector_jax.types import ImageOptions, InputError


def choose_grid(options: ImageOptions, width: int, height: int) -> tuple[int, int]:
  """Rows and columns of the tiles of an image of this size.

  Args:
    options: of the form "gemma4".
    width, height: in pixels.
  """
  # These very operations: transformers' `get_aspect_ratio_preserving_size` has them.
  side, most = options.size, options.max_pixels // options.size**2
  factor = math.sqrt(options.max_pixels / (height * width))
  rows = math.floor(factor * height / side)
  columns = math.floor(factor * width / side)
  if rows == 0:
    return 1, min(math.floor(width / height), most)
  if columns == 0:
    return min(math.floor(height / width), most), 1
  return rows, columns


def limit_pixels(options: ImageOptions, most: int) -> ImageOptions:
  """The options by which an image has so many pixels at most.

  Raises:
    InputError: they are fewer than the image processor can be set to.
  """
  area = options.size**2
  counts = options.token_counts
  fitting = [count * area for count in counts if count * area <= most]
  if not fitting:
    raise InputError(
      f"model.resize_pixels={most}: this base's image processor fits images to one of"
      f" {', '.join(map(str, counts))} tokens of {area} pixels. Give at least"
      f" {counts[0] * area}."
    )
  pixels = min(options.max_pixels, fitting[-1])
  return dataclasses.replace(options, max_pixels=pixels)


GEMMA4 = make_form(choose_grid, limit_pixels)
