"""What an image becomes in a row of tokens, as every form states it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from mllm_selector_jax.types import ImageOptions

NEWLINE = -1  # the feature that is the learned newline vector


class ImageTokens(NamedTuple):
  """Token ids that stand for an image.

  Attributes:
    image: the id wherever a feature of the image stands.
    begin, end: ids before the first and after the last feature.
  """

  image: int
  begin: tuple[int, ...] = ()
  end: tuple[int, ...] = ()


class ImageLayout(NamedTuple):
  """What one image becomes in a row; its size alone decides this.

  P is the number of features of a tile, as `count_features` gives it.

  Attributes:
    tiles: the number of squares that the vision tower reads.
    tokens: the ids in the row, with the marks around the features.
    features: what stands at each image token, in order: `tile * P + place` for a
      feature of a tile, `NEWLINE` for the newline vector, and `-2 - k` for the
      interpolated feature `k`.
    taps: for each interpolated feature, the four features of tiles that it mixes.
    weights: the shares of the four.
  """

  tiles: int
  tokens: Int[np.ndarray, " m"]
  features: Int[np.ndarray, " n"]
  taps: Int[np.ndarray, "k 4"]
  weights: Float[np.ndarray, "k 4"]


class ImageForm(NamedTuple):
  """The two functions of a form; `lay_out` and `cut_tiles` call them.

  Attributes:
    lay_out: (options, tokens, width, height, images) -> the layout.
    cut_tiles: (options, image, images) -> the tiles' pixels.
  """

  lay_out: Callable[[ImageOptions, ImageTokens, int, int, int], ImageLayout]
  cut_tiles: Callable[[ImageOptions, Image.Image, int], UInt8[np.ndarray, "t S S 3"]]


def count_features(options: ImageOptions) -> int:
  """The number P of features of a tile."""
  return options.grid**2 + options.extra_features


def make_layout(
  tokens: ImageTokens,
  tiles: int,
  features: Int[np.ndarray, " n"],
  taps: Int[np.ndarray, "k 4"] | None = None,
  weights: Float[np.ndarray, "k 4"] | None = None,
) -> ImageLayout:
  """A layout with one image token for each feature, between the marks."""
  begin, end = len(tokens.begin), len(tokens.begin) + len(features)
  ids = np.full(end + len(tokens.end), tokens.image, np.int32)
  ids[:begin], ids[end:] = tokens.begin, tokens.end
  return ImageLayout(
    tiles,
    ids,
    features.astype(np.int32),
    np.zeros((0, 4), np.int32) if taps is None else taps.astype(np.int32),
    np.zeros((0, 4), np.float32) if weights is None else weights.astype(np.float32),
  )


def split_tiles(
  pixels: UInt8[np.ndarray, "height width 3"], size: int
) -> UInt8[np.ndarray, "t S S 3"]:
  """Cuts pixels into squares of this side, row by row."""
  rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
  cut = pixels.reshape(rows, size, columns, size, 3).swapaxes(1, 2)
  return cut.reshape(rows * columns, size, size, 3)
