"""What an image becomes in a row of tokens, as every form states it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from mllm_selector_jax.types import ImageLayout, ImageOptions, ImageTokens


def _keep_options(options: ImageOptions, most: int) -> ImageOptions:
  """The limit of a form that has one tile an image."""
  return options


class ImageForm(NamedTuple):
  """The functions of a form; `BaseImages` calls them.

  Attributes:
    lay_out: (options, tokens, width, height, images) -> the layout.
    cut_tiles: (options, image, images) -> the tiles' pixels.
    leads: whether a question's only image stands before its text, wherever its mark
      is, as LLaVA's own code has it (`preprocess_multimodal`).
    by_size: whether an image's size decides its layout.
    pads: whether an image may be padded to the square of its longer side.
    limit_tiles: (options, most) -> options by which an image is cut into so many tiles
      at most; one of the whole image is not counted.
    limit_pixels: (options, most) -> options by which an image is resized to so many
      pixels at most; None where an image is resized before the form sees it.
  """

  lay_out: Callable[[ImageOptions, ImageTokens, int, int, int], ImageLayout]
  cut_tiles: Callable[[ImageOptions, Image.Image, int], UInt8[np.ndarray, "t S S 3"]]
  leads: bool = True
  by_size: bool = True
  pads: bool = True
  limit_tiles: Callable[[ImageOptions, int], ImageOptions] = _keep_options
  limit_pixels: Callable[[ImageOptions, int], ImageOptions] | None = None


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
