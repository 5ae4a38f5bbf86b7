"""Where the features and the tiles of an image stand in the arrays of a shard."""

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.types import NEWLINE, ImageLayout


def place_features(
  layout: ImageLayout, first_tile: int, first_tap: int, tiles: int, patches: int
) -> Int[np.ndarray, " n"]:
  """Where an image's features stand in the shard's table; see `types.Batch`.

  Args:
    layout: of the image.
    first_tile, first_tap: how many the shard holds before this image's.
    tiles: M, of the shard.
    patches: P, features a tile.
  """
  features, newline = layout.features, tiles * patches
  of_tile = features + first_tile * patches
  interpolated = newline + 1 + first_tap - features - 2
  return np.select(
    [features >= 0, features == NEWLINE], [of_tile, newline], interpolated
  )


def place_tiles(layout: ImageLayout, number: int) -> Int[np.ndarray, "t 5"]:
  """Where an image's tiles lie; see `types.Batch.places`.

  Args:
    layout: of an image of native resolution.
    number: of the image among the shard's, from 1.
  """
  places = np.empty((layout.tiles, 5), np.int32)
  places[:, 0], places[:, 1:3], places[:, 3:] = number, layout.places, layout.grid
  return places
