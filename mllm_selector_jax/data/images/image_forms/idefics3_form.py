"""The form of Idefics 3 and SmolVLM: tiles in marked rows, then the whole image.

An image is scaled, up or down, to a longest edge, stretched to whole tiles and cut.
Each tile has a mark that names its row and column. The tile of the whole image is the
last, or the only one.
"""

import functools
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mllm_selector_jax.data.images.image_forms.image_layout import (
  ImageForm,
  count_features,
  make_layout,
  split_tiles,
)
from mllm_selector_jax.data.images.image_forms.pixtral_form import limit_edge
from mllm_selector_jax.types import ImageLayout, ImageOptions, ImageTokens


def fit_edge(options: ImageOptions, width: int, height: int) -> tuple[int, int]:
  """Width and height of an image that is scaled to the longest edge.

  The shorter side becomes an even number; of a square with an odd edge, it is then the
  longer one, as in transformers.
  """
  ratio, edge = width / height, options.longest_edge
  # These very products and quotients: transformers' image processor has them.
  shorter = int(edge / ratio) if width >= height else int(edge * ratio)
  shorter = max(1, shorter + shorter % 2)
  return (edge, shorter) if width >= height else (shorter, edge)


def count_tiles(options: ImageOptions, width: int, height: int) -> tuple[int, int]:
  """Rows and columns of the tiles of an image of this size; (1, 1) for no cutting.

  Args:
    options: of this form.
    width, height: of the image before anything is done to it, in pixels.
  """
  if not options.split:
    return 1, 1
  side, (width, height) = options.size, fit_edge(options, width, height)
  ratio = width / height
  if width >= height:
    columns = math.ceil(width / side)
    return math.ceil(int(columns * side / ratio) / side), columns
  rows = math.ceil(height / side)
  return rows, math.ceil(int(rows * side * ratio) / side)


@functools.lru_cache(maxsize=256)
def _lay_out_tiles(
  tokens: ImageTokens, rows: int, columns: int, count: int
) -> ImageLayout:
  """The layout of all images of so many tiles of `count` features."""
  features, ids = [tokens.image] * count, []
  tiles = 1
  if (rows, columns) != (1, 1):
    for row in range(rows):
      for column in range(columns):
        ids += [*tokens.tags[row][column], *features]
      ids += tokens.between if row < rows - 1 else tokens.below
    tiles += rows * columns
  ids += [*tokens.begin, *features, *tokens.end]
  layout = make_layout(tokens, tiles, np.arange(tiles * count))
  return layout._replace(tokens=np.array(ids, np.int32))


def lay_out_tiles(
  options: ImageOptions, tokens: ImageTokens, width: int, height: int, images: int
) -> ImageLayout:
  """All features of all tiles, row by row, each after its tile's mark."""
  grid = count_tiles(options, width, height)
  return _lay_out_tiles(tokens, *grid, count_features(options))


def cut_tiles(
  options: ImageOptions, image: Image.Image, images: int
) -> UInt8[np.ndarray, "t S S 3"]:
  """The tiles row by row, and the whole image, stretched to a square, as the last."""
  side, resample = options.size, options.resample
  rows, columns = count_tiles(options, *image.size)
  fitted = image.resize(fit_edge(options, *image.size), resample)
  if not options.split:
    return np.asarray(fitted.resize((side, side), resample))[None]
  stretched = fitted.resize((columns * side, rows * side), resample)
  tiles = split_tiles(np.asarray(stretched), side)
  if len(tiles) == 1:
    return tiles
  whole = np.asarray(stretched.resize((side, side), resample))
  return np.concatenate([tiles, whole[None]])


def limit_tiles(options: ImageOptions, most: int) -> ImageOptions:
  """The options by which an image is cut into so many tiles at most.

  The image processor knows the longest edge alone, and a square image has as many rows
  as columns, so that the edge is lowered to the side of the largest square of tiles.
  """
  return limit_edge(options, most * options.size**2) if options.split else options


IDEFICS3 = ImageForm(
  lay_out_tiles,
  cut_tiles,
  leads=False,
  pads=False,
  limit_tiles=limit_tiles,
  limit_pixels=limit_edge,
)
