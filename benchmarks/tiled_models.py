"""Small models and pools of images of many sizes, for scoring_tiles.py."""

import dataclasses
import types
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import tiled_pools
from benchmarks.pool_columns import describe_samples
from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.packing.assembly import Example
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.types import (
  ImageOptions,
  ImageTokens,
  Params,
  PlacedImage,
  Sample,
)
from tests.models import packed, tiny

IMAGE_TOKEN, FIRST_WORD, VOCAB = 4, 7, 1024
GRID = 8  # features along a tile's side
# (vision, decoder): width, layers, heads, inner width.
SIZES = {
  "tiny": ((32, 3, 2, 64), (64, 2, 2, 176)),
  "small": ((64, 3, 4, 256), (192, 4, 4, 512)),
  "medium": ((96, 4, 4, 384), (256, 5, 4, 688)),
}
FORMS = ("llava_next", "internvl", "qwen2_5_vl", "qwen3_vl")
NATIVE_SIDE = 8  # pixels of a tile of native resolution, which has 2 x 2 patches
NATIVE_TOKENS = 1280  # of an image at most, in the published model
_FIELDS = "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"


def scale_form(name: str, side: int) -> tuple[BaseImages, float, float]:
  """The form with small tiles.

  Returns:
    The form, the factor of an image's sides, and that of the number of its tokens.
  """
  if name not in tiled_pools.FORMS:
    return _scale_native(name)
  form = tiled_pools.FORMS[name]
  options = form.options
  factor = side / options.size
  pinpoints = tuple(
    (high * side // options.size, wide * side // options.size)
    for high, wide in options.pinpoints
  )
  small = dataclasses.replace(options, size=side, grid=GRID, pinpoints=pinpoints)
  tokens = (GRID / options.grid) ** 2
  return dataclasses.replace(form, options=small), factor, tokens


def _scale_native(name: str) -> tuple[BaseImages, float, float]:
  """The form of native resolution with small tiles, and fewer of them."""
  tokens = 1 / 9
  options = ImageOptions(
    NATIVE_SIDE,
    tiled_pools.HALF,
    tiled_pools.HALF,
    form="native",
    grid=1,
    min_pixels=4 * NATIVE_SIDE**2,
    max_pixels=round(NATIVE_TOKENS * tokens) * NATIVE_SIDE**2,
    window=4 if name == "qwen2_5_vl" else 0,
  )
  side = 28 if name == "qwen2_5_vl" else 32
  form = BaseImages(options, ImageTokens(IMAGE_TOKEN, (5,), (6,)))
  return form, NATIVE_SIDE / side * tokens**0.5, tokens


def make_model(
  name: str, size: str, form: BaseImages, folder: Path
) -> tuple[MllmConfig, Params, Path]:
  """Config and random parameters, and the directory that holds them for torch."""
  vision, decoder = (dict(zip(_FIELDS, part, strict=True)) for part in SIZES[size])
  if form.options.form == "native":
    fields = _describe_native(name, vision, decoder)
  else:
    fields = _describe_tiled(name, vision, form)
  base = tiny.make_base(
    folder / "base",
    family=name,
    vocab_size=VOCAB,
    num_key_value_heads=decoder["num_attention_heads"],
    max_position_embeddings=8192,
    **decoder,
    **fields,
  )
  config = huggingface.read_config(base)
  assert config.patches == form.options.grid**2 and config.image_token == IMAGE_TOKEN
  params = packed.random_params(config)
  huggingface.write_model(folder / "out", config, params, base)
  return config, params, folder / "out"


def _describe_tiled(name: str, vision: dict[str, int], form: BaseImages) -> dict:
  """The vision tower of a form of tiles, and what the whole's config says of it."""
  merge, side = 2 if name == "internvl" else 1, form.options.size
  fields: dict[str, Any] = {f"vision_{key}": value for key, value in vision.items()}
  if name == "llava_next":
    fields["llava_image_grid_pinpoints"] = [*map(list, form.options.pinpoints)]
  return {
    **fields,
    "decoder": "qwen2" if name == "internvl" else "llama",
    "vision_image_size": side,
    "vision_patch_size": side // (GRID * merge),
  }


def _describe_native(name: str, vision: dict, decoder: dict) -> dict[str, Any]:
  """The vision tower of a form of native resolution."""
  depth = vision["num_hidden_layers"]
  head = decoder["hidden_size"] // decoder["num_attention_heads"]
  third = head // 6  # of the pairs of channels
  sections = [head // 2 - 2 * third, third, third]
  fields: dict[str, Any] = {
    "rope_parameters": {
      "rope_type": "default",
      "rope_theta": 1e6,
      "mrope_section": sections,
    },
    "vision_depth": depth,
    "vision_hidden_size": vision["hidden_size"],
    "vision_num_heads": vision["num_attention_heads"],
    "vision_intermediate_size": vision["intermediate_size"],
    "vision_patch_size": NATIVE_SIDE // 2,
    "vision_out_hidden_size": decoder["hidden_size"],
  }
  if name == "qwen2_5_vl":
    fields |= {
      "vision_window_size": 4 * NATIVE_SIDE,
      "vision_fullatt_block_indexes": [depth - 1],
    }
  else:
    fields |= {"head_dim": head, "vision_deepstack_visual_indexes": [0]}
  return fields


class Pool:
  """Rows as the checked pool describes them, and as its reader gives them.

  Attributes:
    samples: tokens of each row.
    names: the images of each row.
    tiles: pixels of each image, by name.
    sizes: width and height of each image, by name.
    table: the columns that scoring asks for.
  """

  encoder = types.SimpleNamespace(image_token=IMAGE_TOKEN)

  def __init__(self, samples, names, tiles, sizes):
    self.samples, self.names = samples, names
    self.tiles, self.sizes = tiles, sizes
    self.table = describe_samples(samples, [[*map(str, row)] for row in names])

  def read(self, row: int) -> Example:
    return self.samples[row], tuple(self.tiles[name] for name in self.names[row])


def make_pool(
  rows: int,
  form: BaseImages,
  factor: float,
  tokens: float,
  questions: int | None = None,
) -> Pool:
  """Rows of random text behind their images; see tiled_pools.py.

  Rows that 8,192 tokens of the published model would not hold are left out.

  Args:
    rows: of the pool.
    form: of the images.
    factor, tokens: as `scale_form` returns them.
    questions: rows that share each image; None for the shares of `draw_pool`.
  """
  drawn = tiled_pools.draw_pool(rows, questions=questions)
  rng = np.random.default_rng(0)
  sizes = np.maximum(4, np.rint(drawn.sizes * factor)).astype(int)
  longest = round(8192 * tokens)
  system = rng.integers(FIRST_WORD, VOCAB, max(1, round(tiled_pools.SYSTEM * tokens)))
  samples: list[Sample] = []
  names: list[list[int]] = []
  for row in range(rows):
    images = drawn.images[drawn.bounds[row] : drawn.bounds[row + 1]].tolist()
    layouts = [form.lay_out(*sizes[image].tolist(), len(images)) for image in images]
    text = max(2, round(int(drawn.text[row]) * tokens))
    learned = min(text - 1, max(1, round(int(drawn.supervised[row]) * tokens)))
    sample = _fill(system, layouts, text, learned, rng)
    if len(sample.tokens) <= longest:
      samples.append(sample)
      names.append(images)
  tiles = {}
  side = form.options.size
  for row, sample in zip(names, samples, strict=True):
    for name, image in zip(row, sample.images, strict=True):
      shape = image.layout.tiles, side, side, 3
      if name not in tiles:
        tiles[name] = rng.integers(0, 256, shape, np.uint8)
  return Pool(samples, names, tiles, sizes)


def _fill(system, layouts: list[Any], text: int, learned: int, rng) -> Sample:
  words = rng.integers(FIRST_WORD, VOCAB, text)
  parts, images, start = [system], [], len(system)
  for layout in layouts:
    images.append(PlacedImage(start, layout))
    parts.append(layout.tokens)
    start += len(layout.tokens)
  tokens = np.concatenate([*parts, words]).astype(np.int32)
  supervised = np.arange(len(tokens)) >= len(tokens) - learned
  turns = np.where(supervised, 0, -1).astype(np.int32)
  asked = np.zeros(len(tokens), bool)
  return Sample(tokens, supervised, turns, asked, False, tuple(images))
