"""The form of LLaVA-NeXT and LLaVA-OneVision: the whole image, then its tiles.

The image is fitted into the best of some given sizes, centred on black, and cut
into tiles. The features of the tiles are joined to one map; those of the black
borders are left out, and the learned newline vector ends each line of the map.
"""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from mllm_selector_jax.data.images.image_forms.bilinear_taps import shrink_map
from mllm_selector_jax.data.images.image_forms.image_layout import (
  ImageForm,
  count_features,
  make_layout,
  split_tiles,
)
from mllm_selector_jax.data.images.image_forms.square_form import to_pixels
from mllm_selector_jax.types import (
  NEWLINE,
  ImageLayout,
  ImageOptions,
  ImageTokens,
  InputError,
)

_SHRINK_ABOVE = 1.1  # by less than this factor a map's sides are not shrunk


@functools.lru_cache(maxsize=4096)
def choose_pinpoint(
  pinpoints: tuple[tuple[int, int], ...], width: int, height: int
) -> tuple[int, int]:
  """Height and width, of those allowed, that show most of an image's pixels.

  Among those that show as many, the one with the least border.
  """
  best, most, least = pinpoints[0], -1, 0
  for high, wide in pinpoints:
    scale = min(wide / width, high / height)
    shown = min(int(width * scale) * int(height * scale), width * height)
    border = high * wide - shown
    if shown > most or (shown == most and border < least):
      best, most, least = (high, wide), shown, border
  return best


def fit_image(width: int, height: int, wide: int, high: int) -> tuple[int, int]:
  """Width and height of an image that is resized, undistorted, to fit."""
  if wide / width < high / height:
    return wide, min(math.ceil(height * (wide / width)), high)
  return min(math.ceil(width * (high / height)), wide), high


def crop_map(columns: int, rows: int, width: int, height: int) -> tuple[slice, slice]:
  """The lines and columns of a map of features that show an image of this size.

  The product is rounded to seven digits, as transformers does it in processor and
  model, so that a size that comes out whole is not one feature short.
  """
  if width / height > columns / rows:
    border = (rows - int(round(height * (columns / width), 7))) // 2
    return slice(border, rows - border), slice(None)
  border = (columns - int(round(width * (rows / height), 7))) // 2
  return slice(None), slice(border, columns - border)


def join_tiles(grid: int, columns: int, rows: int) -> Int[np.ndarray, "h w"]:
  """The map of the features of the tiles 1, 2, ..., which lie row by row."""
  tiles = np.arange(grid**2, (columns * rows + 1) * grid**2)
  places = tiles.reshape(rows, columns, grid, grid).swapaxes(1, 2)
  return places.reshape(rows * grid, columns * grid)


def lay_out_map(
  options: ImageOptions, tokens: ImageTokens, width: int, height: int, images: int
) -> ImageLayout:
  """The features of the whole image, then those of the map, line by line."""
  base = np.arange(count_features(options))
  if images > 1 and not options.tile_several:
    return make_layout(tokens, 1, np.append(base, NEWLINE))
  high, wide = choose_pinpoint(options.pinpoints, width, height)
  columns, rows = wide // options.size, high // options.size
  places = join_tiles(options.grid, columns, rows)
  lines, across = crop_map(places.shape[1], places.shape[0], width, height)
  places = places[lines, across]
  taps = weights = None
  if options.max_features is not None:
    ratio = math.sqrt(places.size / (options.max_features * options.grid**2))
    if ratio > _SHRINK_ABOVE:
      shape = int(places.shape[0] // ratio), int(places.shape[1] // ratio)
      taps, weights = shrink_map(places, *shape)
      places = -2 - np.arange(len(taps)).reshape(shape)
  ended = np.pad(places, ((0, 0), (0, 1)), constant_values=NEWLINE)
  features = np.concatenate([base, ended.ravel()])
  return make_layout(tokens, columns * rows + 1, features, taps, weights)


def cut_fitted(
  options: ImageOptions, image: Image.Image, images: int
) -> UInt8[np.ndarray, "t S S 3"]:
  """The whole image stretched to a square, then the tiles row by row.

  In a row of several images that are not cut, only the image, padded to a square.
  """
  size = options.size
  if images > 1 and not options.tile_several:
    return to_pixels(image, options)[None]
  base = np.asarray(image.resize((size, size), options.resample))
  high, wide = choose_pinpoint(options.pinpoints, *image.size)
  fitted = image.resize(fit_image(*image.size, wide, high), options.resample)
  canvas = Image.new("RGB", (wide, high))
  canvas.paste(fitted, ((wide - fitted.width) // 2, (high - fitted.height) // 2))
  return np.concatenate([base[None], split_tiles(np.asarray(canvas), size)])


def limit_tiles(options: ImageOptions, most: int) -> ImageOptions:
  """The options without the pinpoints of more tiles, the whole image not counted.

  Raises:
    InputError: no pinpoint is left.
  """
  counts = {
    pinpoint: (pinpoint[0] // options.size) * (pinpoint[1] // options.size)
    for pinpoint in options.pinpoints
  }
  left = tuple(pinpoint for pinpoint, tiles in counts.items() if tiles <= most)
  if not left:
    raise InputError(
      f"model.max_tiles={most}: the smallest of the base's image_grid_pinpoints has"
      f" {min(counts.values())} tiles; give that number or more, or none."
    )
  return dataclasses.replace(options, pinpoints=left)


ANYRES = ImageForm(lay_out_map, cut_fitted, limit_tiles=limit_tiles)
