"""Images of several tiles for the tests of the model, laid out by hand."""

from typing import Any, NamedTuple

import numpy as np

from mllm_selector_jax import types
from mllm_selector_jax.models.config import MllmConfig

NEWLINE = -1


class Sample(NamedTuple):
  """Text with images, of which one place is one feature.

  Attributes:
    tokens: token ids; the image token's where a feature stands.
    features: of each image token, in order: a tile's own feature (tile * P + place),
      `NEWLINE`, or -2 - k for interpolated feature k.
    tiles: pixels, [t, S, S, 3].
    taps: the four features that each interpolated one is a sum of.
    weights: and their weights.
  """

  tokens: np.ndarray
  features: np.ndarray
  tiles: np.ndarray
  taps: np.ndarray
  weights: np.ndarray


def make_sample(
  config: MllmConfig,
  rng: np.random.Generator,
  text: int,
  tiles: int,
  features: np.ndarray | None = None,
  taps: Any = (),
  weights: Any = (),
) -> Sample:
  """Random text with one image of so many tiles; by default all of their features."""
  if features is None:
    features = np.arange(tiles * config.patches)
  side = config.vision.image_size
  words = rng.integers(5, config.decoder.vocab, text)
  tokens = np.insert(words, [1] * len(features), config.image_token)
  return Sample(
    tokens,
    np.asarray(features, np.int64),
    rng.integers(0, 256, (tiles, side, side, 3), dtype=np.uint8),
    np.asarray(taps, np.int64).reshape(-1, 4),
    np.asarray(weights, np.float32).reshape(-1, 4),
  )


def pack(config: MllmConfig, rows: list[list[Sample]], length: int) -> types.Batch:
  """Packs samples one after the other; each row is a shard."""
  side, many = config.vision.image_size, config.patches
  tokens, positions, segments = np.zeros((3, len(rows), length), np.int32)
  patches = np.full((len(rows), length), -1, np.int32)
  most = max(sum(len(sample.tiles) for sample in row) for row in rows)
  drawn = max(sum(len(sample.taps) for sample in row) for row in rows)
  images = np.zeros((len(rows), most, side, side, 3), np.uint8)
  taps = np.zeros((len(rows), drawn, 4), np.int32)
  weights = np.zeros((len(rows), drawn, 4), np.float32)
  for row, samples in enumerate(rows):
    start = tile = tap = 0
    for number, sample in enumerate(samples):
      here = slice(start, start + len(sample.tokens))
      tokens[row, here] = sample.tokens
      positions[row, here] = np.arange(len(sample.tokens))
      segments[row, here] = 1 + number
      places = start + np.flatnonzero(sample.tokens == config.image_token)
      index = np.where(
        sample.features == NEWLINE, most * many, sample.features + tile * many
      )
      drawn_index = most * many + config.newline + tap - 2 - sample.features
      patches[row, places] = np.where(sample.features < NEWLINE, drawn_index, index)
      images[row, tile : tile + len(sample.tiles)] = sample.tiles
      taps[row, tap : tap + len(sample.taps)] = sample.taps + tile * many
      weights[row, tap : tap + len(sample.taps)] = sample.weights
      start += len(sample.tokens)
      tile += len(sample.tiles)
      tap += len(sample.taps)
    assert start <= length, (start, length)
  none = np.zeros((len(rows), 1), np.int32)
  return types.Batch(
    tokens=tokens,
    positions=positions,
    segments=segments,
    patches=patches,
    images=images,
    predict=none,
    targets=none,
    weights=none.astype(float),
    answers=none,
    taps=taps if drawn else None,
    tap_weights=weights if drawn else None,
  )
