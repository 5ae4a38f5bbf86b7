"""InternVL's form: a grid of tiles of nearly the image's shape, and a thumbnail."""

import dataclasses
import functools

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mllm_selector_jax.data.images.image_forms.image_layout import (
  ImageForm,
  count_features,
  make_layout,
  split_tiles,
)
from mllm_selector_jax.types import ImageLayout, ImageOptions, ImageTokens


def choose_grid(
  options: ImageOptions, width: int, height: int, images: int
) -> tuple[int, int]:
  """Columns and rows of the tiles that an image of this size is cut into.

  The grid whose shape is nearest to the image's. Among grids of one shape, a larger
  one is taken only if the image has more than half of its pixels.
  """
  if images > 1 and not options.tile_several:
    return 1, 1
  ratio, area = width / height, width * height
  best, least = (1, 1), float("inf")
  for columns, rows in _list_grids(options.min_tiles, options.max_tiles):
    difference = abs(ratio - columns / rows)
    if difference < least:
      best, least = (columns, rows), difference
    elif difference == least and area > 0.5 * options.size**2 * columns * rows:
      best = columns, rows
  return best


@functools.lru_cache(maxsize=16)
def _list_grids(fewest: int, most: int) -> tuple[tuple[int, int], ...]:
  """Columns and rows of all grids of so many tiles, those of few tiles first."""
  grids = [
    (columns, rows)
    for columns in range(1, most + 1)
    for rows in range(1, most // columns + 1)
    if columns * rows >= fewest
  ]
  return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def lay_out_tiles(
  options: ImageOptions, tokens: ImageTokens, width: int, height: int, images: int
) -> ImageLayout:
  """All features of all tiles, in order."""
  columns, rows = choose_grid(options, width, height, images)
  tiles = columns * rows
  tiles += options.thumbnail and tiles > 1
  return make_layout(tokens, tiles, np.arange(tiles * count_features(options)))


def cut_grid(
  options: ImageOptions, image: Image.Image, images: int
) -> UInt8[np.ndarray, "t S S 3"]:
  """The tiles row by row, of the image stretched to the grid; the thumbnail last."""
  size = options.size
  columns, rows = choose_grid(options, image.width, image.height, images)
  stretched = image.resize((columns * size, rows * size), options.resample)
  tiles = split_tiles(np.asarray(stretched), size)
  if not options.thumbnail or len(tiles) == 1:
    return tiles
  thumbnail = np.asarray(image.resize((size, size), options.resample))
  return np.concatenate([tiles, thumbnail[None]])


def limit_tiles(options: ImageOptions, most: int) -> ImageOptions:
  """The options with no more than so many tiles, the thumbnail not counted."""
  return dataclasses.replace(
    options,
    min_tiles=min(options.min_tiles, most),
    max_tiles=min(options.max_tiles, most),
  )


INTERNVL = ImageForm(
  lay_out_tiles, cut_grid, leads=False, pads=False, limit_tiles=limit_tiles
)
