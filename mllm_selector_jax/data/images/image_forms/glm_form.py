"""The form of GLM-4.1V: as Qwen-VL's, but that its bounds count every frame of a patch.

A still image stands in all frames. If a side of it is shorter than a tile, it is
enlarged before anything else.
"""

import dataclasses
import math

from mllm_selector_jax.data.images.image_forms.native_form import make_form
from mllm_selector_jax.types import ImageOptions

FRAMES = 2  # of a patch


def choose_grid(options: ImageOptions, width: int, height: int) -> tuple[int, int]:
  """Rows and columns of the tiles of an image of this size.

  Args:
    options: of the form "glm4v", whose bounds are pixels of all frames together.
    width, height: in pixels; none is more than 200 times the other.
  """
  side = options.size
  # Python's round and int, and these very divisions: transformers' `smart_resize` has
  # them.
  if height < side or width < side:
    scale = max(side / height, side / width)
    height, width = int(height * scale), int(width * scale)
  rows, columns = round(height / side), round(width / side)
  pixels = FRAMES * rows * columns * side**2
  if pixels > options.max_pixels:
    scale = math.sqrt(FRAMES * height * width / options.max_pixels)
    rows = max(1, math.floor(height / scale / side))
    columns = max(1, math.floor(width / scale / side))
  elif pixels < options.min_pixels:
    scale = math.sqrt(options.min_pixels / (FRAMES * height * width))
    rows = math.ceil(height * scale / side)
    columns = math.ceil(width * scale / side)
  return rows, columns


def limit_pixels(options: ImageOptions, most: int) -> ImageOptions:
  """The options by which an image has about so many pixels at most."""
  return dataclasses.replace(
    options,
    min_pixels=min(options.min_pixels, FRAMES * most),
    max_pixels=min(options.max_pixels, FRAMES * most),
  )


GLM4V = make_form(choose_grid, limit_pixels)
