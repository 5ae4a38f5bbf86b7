"""The form of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: an image at its own resolution.

The image is resized to whole numbers of tiles along its sides, within bounds of its
pixels. A tile is a small square that gives one feature, so that the size of an image
decides how many tokens it takes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from mllm_selector_jax.data.images.image_forms.image_layout import (
  ImageForm,
  make_layout,
  split_tiles,
)
from mllm_selector_jax.types import ImageLayout, ImageOptions, ImageTokens, InputError

ChooseGrid = Callable[[ImageOptions, int, int], tuple[int, int]]


def choose_grid(options: ImageOptions, width: int, height: int) -> tuple[int, int]:
  """Rows and columns of the tiles of an image of this size.

  The nearest whole numbers, an even one where two are as near. If they exceed the
  bounds of pixels, both sides are first scaled by one factor to the bound. A side has
  at least one tile, so that a strip may have more pixels than `max_pixels`.

  Args:
    options: of the form "native".
    width, height: in pixels; none is more than 200 times the other
      (`decoding.MOST_RATIO`).
  """
  side = options.size
  # Python's round, and these very divisions: transformers' `smart_resize` has them.
  rows, columns = round(height / side), round(width / side)
  if rows * columns * side**2 > options.max_pixels:
    scale = math.sqrt(height * width / options.max_pixels)
    rows = max(1, math.floor(height / scale / side))
    columns = max(1, math.floor(width / scale / side))
  elif rows * columns * side**2 < options.min_pixels:
    scale = math.sqrt(options.min_pixels / (height * width))
    rows = math.ceil(height * scale / side)
    columns = math.ceil(width * scale / side)
  return rows, columns


def place_tiles(rows: int, columns: int, window: int) -> Int[np.ndarray, "t 2"]:
  """Row and column of each tile of an image, in the order in which the tiles lie.

  They lie row by row or, if windows have sides of `window` tiles, window by window:
  the windows row by row, and the tiles of a window row by row. The last windows of a
  row or column are cut off by the image's edge.
  """
  row, column = np.divmod(np.arange(rows * columns, dtype=np.int32), columns)
  if window:
    order = np.lexsort((column, row, column // window, row // window))
    row, column = row[order], column[order]
  return np.stack([row, column], -1)


@functools.lru_cache(maxsize=4096)
def lay_out_places(
  tokens: ImageTokens, rows: int, columns: int, window: int
) -> ImageLayout:
  """The layout of all images of so many tiles, which images of many sizes share."""
  places = place_tiles(rows, columns, window)
  features = np.empty(len(places), np.int32)
  features[places[:, 0] * columns + places[:, 1]] = np.arange(len(places))
  layout = make_layout(tokens, len(places), features)
  return layout._replace(places=places, grid=(rows, columns))


def _lay_out_grid(
  choose: ChooseGrid,
  options: ImageOptions,
  tokens: ImageTokens,
  width: int,
  height: int,
  images: int,
) -> ImageLayout:
  """A token for each tile, row by row, however the tiles lie."""
  return lay_out_places(tokens, *choose(options, width, height), options.window)


def _cut_grid(
  choose: ChooseGrid, options: ImageOptions, image: Image.Image, images: int
) -> UInt8[np.ndarray, "t S S 3"]:
  """The tiles of the fitted image, in the order of `place_tiles`."""
  side = options.size
  rows, columns = choose(options, *image.size)
  fitted = image.resize((columns * side, rows * side), options.resample)
  places = place_tiles(rows, columns, options.window)
  return split_tiles(np.asarray(fitted), side)[places[:, 0] * columns + places[:, 1]]


def refuse_tiles(options: ImageOptions, most: int) -> ImageOptions:
  """Refuses a number of tiles as a limit.

  Raises:
    InputError: always.
  """
  pixels = options.size**2
  raise InputError(
    f"model.max_tiles={most}: this base reads an image at its own resolution and cuts"
    f" it into no tiles of which some could be left out. Give model.resize_pixels; each"
    f" {pixels} pixels ({options.size} x {options.size}) become one token."
  )


def limit_pixels(options: ImageOptions, most: int) -> ImageOptions:
  """The options by which an image has about so many pixels at most."""
  return dataclasses.replace(
    options,
    min_pixels=min(options.min_pixels, most),
    max_pixels=min(options.max_pixels, most),
  )


def make_form(
  choose: ChooseGrid, limit: Callable[[ImageOptions, int], ImageOptions]
) -> ImageForm:
  """The form in which an image is fitted to a grid of tiles, a token each.

  Args:
    choose: gives the rows and columns of the tiles of an image of a width and a height.
    limit: gives the options by which an image has so many pixels at most.
  """
  return ImageForm(
    functools.partial(_lay_out_grid, choose),
    functools.partial(_cut_grid, choose),
    leads=False,
    pads=False,
    limit_tiles=refuse_tiles,
    limit_pixels=limit,
  )


NATIVE = make_form(choose_grid, limit_pixels)
