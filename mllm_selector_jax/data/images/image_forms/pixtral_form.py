"""The form of Pixtral and Mistral 3: an image at its own resolution, row by row.

An image whose longer side exceeds a bound is made smaller, and its sides are rounded up
to whole tiles. A tile is a small square that gives one feature; marks stand between the
rows of features and after the last one.
"""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mllm_selector_jax.data.images.image_forms.image_layout import (
  ImageForm,
  make_layout,
  split_tiles,
)
from mllm_selector_jax.data.images.image_forms.native_form import (
  place_tiles,
  refuse_tiles,
)
from mllm_selector_jax.types import ImageLayout, ImageOptions, ImageTokens


def count_rows(options: ImageOptions, width: int, height: int) -> tuple[int, int]:
  """Rows and columns of the tiles of an image of this size.

  A side has at least one tile; transformers fails on a strip so thin that it is left
  with none.

  Args:
    options: of the form "pixtral".
    width, height: in pixels.
  """
  # These very divisions: transformers' `get_resize_output_image_size` has them.
  ratio = max(height / options.longest_edge, width / options.longest_edge)
  if ratio > 1:
    height, width = math.floor(height / ratio), math.floor(width / ratio)
  side = options.size
  return max(1, math.ceil(height / side)), max(1, math.ceil(width / side))


@functools.lru_cache(maxsize=4096)
def _lay_out_rows(tokens: ImageTokens, rows: int, columns: int) -> ImageLayout:
  """The layout of all images of so many tiles, which images of many sizes share."""
  row = [tokens.image] * columns
  inside = [*row, *tokens.between] * (rows - 1) + row
  ids = np.array([*tokens.begin, *inside, *tokens.end], np.int32)
  layout = make_layout(tokens, rows * columns, np.arange(rows * columns))
  places = place_tiles(rows, columns, window=0)
  return layout._replace(tokens=ids, places=places, grid=(rows, columns))


def lay_out_rows(
  options: ImageOptions, tokens: ImageTokens, width: int, height: int, images: int
) -> ImageLayout:
  """A token for each tile, row by row, with a mark between two rows."""
  return _lay_out_rows(tokens, *count_rows(options, width, height))


def cut_rows(
  options: ImageOptions, image: Image.Image, images: int
) -> UInt8[np.ndarray, "t S S 3"]:
  """The tiles of the image at nearly its own size, row by row."""
  rows, columns = count_rows(options, *image.size)
  size = (columns * options.size, rows * options.size)
  return split_tiles(np.asarray(image.resize(size, options.resample)), options.size)


def limit_edge(options: ImageOptions, most: int) -> ImageOptions:
  """The options by which an image has so many pixels at most.

  The image processor knows a bound of the longer side alone, so that it is lowered to
  the side of a square of so many pixels, in whole tiles.
  """
  tiles = max(1, math.isqrt(most) // options.size)
  edge = min(options.longest_edge, tiles * options.size)
  return dataclasses.replace(options, longest_edge=edge)


PIXTRAL = ImageForm(
  lay_out_rows,
  cut_rows,
  leads=False,
  pads=False,
  limit_tiles=refuse_tiles,
  limit_pixels=limit_edge,
)
