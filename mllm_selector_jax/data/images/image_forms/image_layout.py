"""What an image becomes in a row of tokens, as every form states it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from mllm_selector_jax.types import ImageLayout, ImageOptions, ImageTokens


class ImageForm(NamedTuple):
  """The functions of a form; `BaseImages` calls them.

  Attributes:
    lay_out: (options, tokens, width, height, images) -> the layout.
    cut_tiles: (options, image, images) -> the tiles' pixels.
    leads: whether a question's only image stands before its text, wherever its mark
      is, as LLaVA's own code has it (`preprocess_multimodal`).
  """

  lay_out: Callable[[ImageOptions, ImageTokens, int, int, int], ImageLayout]
  cut_tiles: Callable[[ImageOptions, Image.Image, int], UInt8[np.ndarray, "t S S 3"]]
  leads: bool = True


def count_features(options: ImageOptions) -> int:
  """The number P of features of a tile."""
  return options.features or options.grid**2


def make_layout(
  tokens: ImageTokens,
  tiles: int,
  features: Int[np.ndarray, " n"],
  taps: Int[np.ndarray, "k 4"] | None = None,
  weights: Float[np.ndarray, "k 4"] | None = None,
) -> ImageLayout:
  """A layout with one image token for each feature, between the marks."""
  return ImageLayout(
    tiles,
    np.array([*tokens.begin, *[tokens.image] * len(features), *tokens.end], np.int32),
    features.astype(np.int32),
    np.zeros((0, 4), np.int32) if taps is None else taps.astype(np.int32),
    np.zeros((0, 4), np.float32) if weights is None else weights.astype(np.float32),
  )
