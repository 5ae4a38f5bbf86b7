"""The form of GLM-4.1V: as Qwen-VL's, but that its bounds count every frame of a patch.

A still image stands in all frames. If a side of it is shorter than a tile, it is
enlarged before anything else.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mllm_selector_jax.data.images.image_forms.image_layout import (
  ImageForm,
  split_tiles,
)
from mllm_selector_jax.data.images.image_forms.native_form import (
  lay_out_places,
  refuse_tiles,
)
from mllm_selector_jax.types import ImageLayout, ImageOptions, ImageTokens

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


def lay_out_image(
  options: ImageOptions, tokens: ImageTokens, width: int, height: int, images: int
) -> ImageLayout:
  """A token for each tile, row by row."""
  return lay_out_places(tokens, *choose_grid(options, width, height), window=0)


def cut_image(
  options: ImageOptions, image: Image.Image, images: int
) -> UInt8[np.ndarray, "t S S 3"]:
  """The tiles of the image at nearly its own size, row by row."""
  side = options.size
  rows, columns = choose_grid(options, *image.size)
  fitted = image.resize((columns * side, rows * side), options.resample)
  return split_tiles(np.asarray(fitted), side)


def limit_pixels(options: ImageOptions, most: int) -> ImageOptions:
  """The options by which an image has about so many pixels at most."""
  return dataclasses.replace(
    options,
    min_pixels=min(options.min_pixels, FRAMES * most),
    max_pixels=min(options.max_pixels, FRAMES * most),
  )


GLM4V = ImageForm(
  lay_out_image,
  cut_image,
  leads=False,
  pads=False,
  limit_tiles=refuse_tiles,
  limit_pixels=limit_pixels,
)
