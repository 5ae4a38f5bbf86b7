"""Layouts of images of native resolution, and samples that hold them, for tests."""

from collections.abc import Sequence

import numpy as np

from mllm_selector_jax.types import ImageLayout, PlacedImage, Sample

IMAGE, BEGIN, END = 4, 5, 6  # token ids


def lay_out_grid(
  rows: int, columns: int, order: Sequence[int] | None = None
) -> ImageLayout:
  """An image of so many tiles, which lie in the given order of the row-by-row one."""
  tiles = rows * columns
  order = np.arange(tiles) if order is None else np.asarray(order)
  ids = np.full(tiles + 2, IMAGE, np.int32)
  ids[0], ids[-1] = BEGIN, END
  places = np.stack(np.divmod(order, columns), axis=1).astype(np.int32)
  features = np.argsort(order).astype(np.int32)
  return ImageLayout(tiles, ids, features, places=places, grid=(rows, columns))


def make_sample(parts: Sequence[int | ImageLayout]) -> Sample:
  """A sample of numbers of text tokens and of images, of which the last is learned."""
  tokens: list[int] = []
  images = []
  for part in parts:
    if isinstance(part, ImageLayout):
      images.append(PlacedImage(len(tokens), part))
      tokens.extend(part.tokens)
    else:
      tokens.extend(range(10, 10 + part))
  length = len(tokens)
  supervised = np.arange(length) == length - 1
  return Sample(
    np.array(tokens, np.int32),
    supervised,
    np.where(supervised, 0, -1).astype(np.int32),
    np.zeros(length, bool),
    False,
    tuple(images),
  )
