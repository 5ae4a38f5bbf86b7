"""The columns of a checked pool that planning and scoring ask for, made in memory."""

import types
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt64

from benchmarks.pool_like_665k import PoolLengths
from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.packing.prefixes import Prefix, Prefixes, list_prefixes
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.types import (
  ImageLayout,
  ImageOptions,
  ImageTokens,
  PlacedImage,
  Sample,
)


def bind_images(config: MllmConfig, options: ImageOptions) -> BaseImages:
  """How the images of a base without marks around them become tiles and tokens."""
  return BaseImages(options, ImageTokens(config.image_token))


def place_image(
  sample: Sample, image_token: int, features: int, tiles: int = 1
) -> Sample:
  """The sample with the image, if any, that its run of image tokens stands for."""
  (at,) = np.nonzero(sample.tokens == image_token)
  if not len(at):
    return sample
  assert len(at) == features and at[-1] - at[0] + 1 == features, at
  tokens = np.full(features, image_token, np.int32)
  layout = ImageLayout(tiles, tokens, np.arange(features))
  return sample._replace(images=(PlacedImage(int(at[0]), layout),))


def join_prefixes(rows: Sequence[Sequence[Prefix]]) -> Prefixes:
  """The prefixes of several rows."""
  bounds = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(int)
  flat = [prefix for row in rows for prefix in row]
  columns = zip(*flat, strict=True) if flat else ((),) * 5
  tokens, tiles, taps, keys, asked = columns
  return Prefixes(
    bounds,
    np.array(tokens, np.int32),
    np.array(tiles, np.int32),
    np.array(taps, np.int32),
    np.array(keys, np.uint64),
    np.array(asked, np.int32),
  )


def describe_samples(
  samples: Sequence[Sample], pixels: Sequence[Sequence[str]]
) -> types.SimpleNamespace:
  """The columns of a checked pool of these samples.

  Args:
    samples: of the rows.
    pixels: a name for the pixels of each image of a row.
  """
  layouts = [[image.layout for image in sample.images] for sample in samples]
  rows = zip(samples, pixels, strict=True)
  return types.SimpleNamespace(
    tokens=np.array([len(sample.tokens) for sample in samples], np.int32),
    supervised=np.array([sample.supervised.sum() for sample in samples], np.int32),
    turns=np.array([sample.turns.max() + 1 for sample in samples], np.int32),
    has_image=np.array([len(row) > 0 for row in layouts]),
    image_tokens=np.array([sum(len(one.tokens) for one in row) for row in layouts]),
    tiles=np.array([sum(one.tiles for one in row) for row in layouts]),
    taps=np.array([sum(len(one.taps) for one in row) for row in layouts]),
    prefixes=join_prefixes([list_prefixes(*row) for row in rows]),
  )


def share_images(
  trunks: Int[np.ndarray, " n"],
  images: UInt64[np.ndarray, " n"],
  image_tokens: int | None = None,
) -> Prefixes:
  """The prefixes of rows of one image each, those before the image only if asked for.

  Args:
    trunks: tokens through the end of each row's image; 0 where they are not shared.
    images: a key of each row's image; 0 for none.
    image_tokens: of an image; None leaves out what precedes it.
  """
  shared = (np.asarray(trunks) > 0) & (np.asarray(images) != 0)
  return join_prefixes(
    [
      [
        *_list_before(int(trunk), image_tokens),
        Prefix(int(trunk), 1, 0, hash_key(int(image), int(trunk))),
      ]
      if is_shared
      else []
      for trunk, image, is_shared in zip(trunks, images, shared, strict=True)
    ]
  )


def _list_before(trunk: int, image_tokens: int | None) -> list[Prefix]:
  return [] if image_tokens is None else [Prefix(trunk - image_tokens, 0, 0, 1)]


def hash_key(image: int, trunk: int) -> int:
  """A number for an image behind so many tokens; never 0."""
  return (image * 1_000_003 + trunk) % 2**64 or 1


def describe_drawn(drawn: PoolLengths, image_tokens: int) -> types.SimpleNamespace:
  """The columns of a checked pool with drawn lengths."""
  has_image = drawn.images != 0
  return types.SimpleNamespace(
    ok=np.ones(len(drawn.lengths), bool),
    tokens=drawn.lengths,
    supervised=drawn.supervised,
    turns=drawn.turns,
    has_image=has_image,
    image_tokens=image_tokens * has_image,
    tiles=has_image.astype(np.int32),
    taps=np.zeros(len(has_image), np.int32),
    prefixes=share_images(drawn.trunks, drawn.images, image_tokens),
  )
