"""Images of a fixed number of tokens, for tests of text."""

import dataclasses

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.types import ImageOptions, ImageTokens

ONE_IMAGE = [(1, 1)]  # the sizes of a row's images, which do not matter here
HALF = (0.5, 0.5, 0.5)


def fixed_images(
  token: int, features: int, options: ImageOptions | None = None
) -> BaseImages:
  """Images that become so many features, whatever their size."""
  options = options or ImageOptions(8, HALF, HALF)
  grid = round(features**0.5)
  extra = features - grid * grid
  options = dataclasses.replace(options, grid=grid, extra_features=extra)
  return BaseImages(options, ImageTokens(token))


def sizes_of(values) -> list[tuple[int, int]]:
  """The sizes of the images that are marked in these texts."""
  return ONE_IMAGE * "".join(values).count("<image>")
