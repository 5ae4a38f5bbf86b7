"""Positions in time, row and column, by which the rotary embeddings of Qwen-VL turn."""

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.types import Sample


def lay_axes(sample: Sample, image_token: int) -> Int[np.ndarray, "L 3"]:
  """Lays the positions of a sample's tokens on three axes (M-RoPE, Qwen2-VL).

  A token of text has one position on all axes, which follows the greatest one before
  it. The features of an image stand still in time, and count rows and columns from the
  position at which the image begins. A beginning of the sample has the same positions
  whatever follows it.

  Args:
    sample: with images of native resolution.
    image_token: the id that stands for a feature of an image.
  """
  axes = np.empty((len(sample.tokens), 3), np.int32)
  start = following = 0  # the first token that has no position yet, and its position
  for image in sample.images:
    (at,) = np.nonzero(image.layout.tokens == image_token)
    at = at + image.start
    first, stop = int(at[0]), int(at[-1]) + 1
    assert stop - first == len(at), "the features of an image lie together"
    axes[start:first] = following + np.arange(first - start)[:, None]
    following += first - start
    axes[at, 0] = following
    axes[at, 1:] = following + image.layout.places[image.layout.features]
    following += max(image.layout.grid)
    start = stop
  axes[start:] = following + np.arange(len(axes) - start)[:, None]
  return axes
