"""Pools in memory for the scoring benchmark: tokens and pixels, ready to be fed.

`make_easy_vqa` reads a pool in LLaVA form; `make_like_665k` draws lengths, images and
turns from `benchmarks.pool_like_665k` and fills them with random tokens and pixels.
"""

import hashlib
import itertools
import pathlib
import types

import numpy as np

from benchmarks.pool_columns import describe_samples, place_image
from benchmarks.pool_like_665k import draw_pool
from benchmarks.scoring_models import IMAGE_TOKEN
from mllm_selector_jax.data.images import decoding
from mllm_selector_jax.data.images.image_forms import square_form
from mllm_selector_jax.data.json_text import records
from mllm_selector_jax.data.packing.assembly import Example
from mllm_selector_jax.data.tokens import conversation
from mllm_selector_jax.demo import make_base
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.types import ImageOptions, Sample
from tests.fixed_images import ONE_IMAGE, fixed_images


class Pool:
  """Rows as the checked pool describes them, and as its reader gives them.

  Attributes:
    samples: tokens of each row, which has one image or none.
    pictures: pixels by key.
    keys: of each row's picture, None for text alone.
    table: the columns that scoring asks for.
  """

  encoder = types.SimpleNamespace(image_token=IMAGE_TOKEN)

  def __init__(self, samples, keys, pictures):
    self.samples, self.pictures, self.keys = samples, pictures, keys
    names = [[] if key is None else [key] for key in keys]
    self.table = describe_samples(samples, names)

  def read(self, row: int) -> Example:
    key = self.keys[row]
    tiles = () if key is None else (self.pictures[key][None],)
    return self.samples[row], tiles


def make_easy_vqa(data: str, folder: str, count: int, config: MllmConfig) -> Pool:
  """The first rows of a pool of short questions, whole images at a time."""
  options = ImageOptions(config.vision.image_size, config.image_mean, config.image_std)
  images = fixed_images(IMAGE_TOKEN, config.patches, options)
  encoder = conversation.make_encoder(
    "vicuna_v1", make_base.make_tokenizer(), images, 2048, ""
  )
  found = [
    record.value for record in itertools.islice(records.read_records(data), count)
  ]
  samples = encoder.encode_many([(row["conversations"], ONE_IMAGE) for row in found])
  keys, pictures = [], {}
  for path in (row["image"] for row in found):
    image = decoding.decode_image(pathlib.Path(folder, path).read_bytes())
    pixels = square_form.to_pixels(image, options)
    keys.append(hashlib.sha256(pixels.tobytes()).hexdigest())
    pictures[keys[-1]] = pixels
  return Pool(samples, keys, pictures)


def make_like_665k(count: int, config: MllmConfig, seed: int = 0) -> Pool:
  """Rows whose tokens are to their image's as in LLaVA's mix of 665K.

  With 576 image tokens the lengths are those of the mix; with fewer, all text is
  shorter by the same factor. An image stands in 1.79 rows, as paths count them.
  """
  rng = np.random.default_rng(seed)
  factor = config.patches / 576
  system = rng.integers(5, config.decoder.vocab, max(1, round(35 * factor)))
  drawn = draw_pool(
    count, seed, config.patches, len(system), factor, round(2048 * factor), by_path=True
  )
  trunk = np.concatenate([system, np.full(config.patches, IMAGE_TOKEN)])
  samples = [
    _fill(length, trunk if key else system, learned, turns, config, rng)
    for length, key, learned, turns in zip(
      drawn.lengths, drawn.images, drawn.supervised, drawn.turns, strict=True
    )
  ]
  side = config.vision.image_size
  keys = [str(key) if key else None for key in drawn.images]
  pictures = {
    key: rng.integers(0, 256, (side, side, 3), np.uint8)
    for key in dict.fromkeys(key for key in keys if key)
  }
  return Pool(samples, keys, pictures)


def _fill(length, start, learned, turns, config, rng) -> Sample:
  """Random text behind the start; each turn ends in its share of what is learned."""
  tokens = rng.integers(5, config.decoder.vocab, length, np.int32)
  tokens[: len(start)] = start
  branch = length - len(start)
  learned = min(int(learned), branch - 1)  # a token at least is asked
  turns = min(int(turns), learned, branch - learned)
  turn_of = np.full(length, -1, np.int32)
  ends = len(start) + branch * np.arange(1, turns + 1) // turns
  shares = np.diff(learned * np.arange(turns + 1) // turns)
  for turn, (end, share) in enumerate(zip(ends, shares, strict=True)):
    turn_of[end - share : end] = turn
  sample = Sample(tokens, turn_of >= 0, turn_of, np.zeros(length, bool), False)
  return place_image(sample, IMAGE_TOKEN, config.patches)
