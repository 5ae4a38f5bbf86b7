"""Rows of images of odd sizes, and what transformers' classes take for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers.models.gemma4.image_processing_pil_gemma4 import (
  get_aspect_ratio_preserving_size,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.packing.assembly import Example
from mllm_selector_jax.data.tokens import conversation
from mllm_selector_jax.data.tokens.conversation import Encoder, Size
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.config import MllmConfig
from tests.models import tiny, tiny_qwen
from tests.models.native_inputs import make_native_inputs, make_placed_inputs

# Families that cut an image into tiles; overrides of `tiny.make_base`.
TILED = {
  "internvl": {"family": "internvl", "decoder": "qwen2"},
  "llava_next": {"family": "llava_next"},
  "llava_onevision": {"family": "llava_onevision", "decoder": "qwen2"},
  "idefics3": {"family": "idefics3"},
  "smolvlm": {"family": "smolvlm", "tie_word_embeddings": True},
  "gemma3": {"family": "gemma3", "tie_word_embeddings": True},
}
# Families that read images in their own sizes; one with a tied head.
NATIVE = {
  "qwen2_5_vl": {"family": "qwen2_5_vl"},
  "qwen2_vl": {"family": "qwen2_vl"},
  "qwen3_vl": {"family": "qwen3_vl", "tie_word_embeddings": True},
  "qwen3_5": {
    "family": "qwen3_5",
    "num_hidden_layers": 5,
    "layer_types": tiny_qwen.name_layers("flflf"),
    "linear_key_head_dim": 32,
  },
  # More layers, and wider heads, round by more than the tests allow.
  "glm4v": {
    "family": "glm4v",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vision_depth": 1,
    "rope_parameters": tiny_qwen.rope(1, 1, 0, partial_rotary_factor=0.5),
  },
  "qwen3_vl_moe": {"family": "qwen3_vl_moe"},
  # Scores that are not divided, and norms of small numbers, make rounding large.
  "gemma4": {
    "family": "gemma4",
    "tie_word_embeddings": True,
    "head_dim": 4,
    "global_head_dim": 8,
    "rms_norm_eps": 0.1,
    "vision_num_hidden_layers": 1,
    "vision_rms_norm_eps": 0.1,
  },
  # More layers, and what clips, even more so.
  "gemma4e": {
    "family": "gemma4e",
    "tie_word_embeddings": True,
    "head_dim": 4,
    "global_head_dim": 8,
    "rms_norm_eps": 0.5,
    "vision_num_hidden_layers": 1,
    "vision_rms_norm_eps": 0.5,
  },
  "pixtral": {"family": "pixtral", "decoder": "mistral"},
  "mistral3": {"family": "mistral3", "decoder": "mistral"},
}
LONGEST = 64  # pixels, of an image that Pixtral's processor prepares
BARE = ("gemma3",)  # whose projector is no layer, so that it takes no adapter
SEVERAL = {**TILED, **NATIVE}  # whose rows may have images of any number and size
LENGTH = 384  # tokens that hold each of the rows
# Questions of a row, an image where <image> stands, and the sizes of the images.
ROWS: tuple[tuple[tuple[str, ...], tuple[Size, ...]], ...] = (
  (("Which colour is it?",), ()),
  (("<image>\nWhich is it?",), ((37, 19),)),
  (("Is it left of <image>\nor <image>\nor <image>?",), ((61, 83), (19, 90), (33, 31))),
  (("Is there text?", "How many are there?"), ()),
  (("<image>\nIs there a square?", "How many?"), ((101, 33),)),
  (("<image>\n<image>\nWhich?", "<image>\nAnd?"), ((71, 50), (23, 29), (90, 45))),
)
ANSWERS = ("red", "three", "a circle", "no")


def make_base(folder: Path, family: str, **overrides: Any) -> Path:
  """A tiny base of one of `SEVERAL`, whose positions hold the longest row."""
  fields = {"max_position_embeddings": 512, **SEVERAL[family], **overrides}
  return tiny.make_base(folder, **fields)


def open_encoder(base: Path) -> Encoder:
  """Turns rows into tokens as the base's tokenizer and image processor say."""
  tokenizer, options = huggingface.read_processor(base)
  images = BaseImages(options, huggingface.read_image_tokens(base, tokenizer))
  return conversation.make_encoder(
    "vicuna_v1", tokenizer, images, max_length=LENGTH, system=""
  )


def cut_random(
  encoder: Encoder, rng: np.random.Generator, sizes: Sequence[Size]
) -> tuple[np.ndarray, ...]:
  """The tiles of images of random pixels, of a row that has these images."""
  return tuple(
    encoder.images.cut_tiles(
      PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)),
      len(sizes),
    )
    for width, height in sizes
  )


def make_examples(encoder: Encoder, count: int) -> list[Example]:
  """Conversations of 0, 1 and 3 images, in one turn and in two."""
  rng, examples = np.random.default_rng(0), []
  for number in range(count):
    questions, sizes = ROWS[number % len(ROWS)]
    turns = []
    for turn, question in enumerate(questions):
      answer = f"{ANSWERS[(number + turn) % len(ANSWERS)]} {number % 7}"
      turns.append({"from": "human", "value": question})
      turns.append({"from": "gpt", "value": answer})
    sample = encoder.encode(turns, sizes)
    assert not sample.truncated and sample.turns.max() + 1 == len(questions)
    examples.append((sample, cut_random(encoder, rng, sizes)))
  return examples


def find_sizes(number: int) -> tuple[Size, ...]:
  """The sizes of the images of an example, in the order of `make_examples`."""
  return ROWS[number % len(ROWS)][1]


def _make_rows(
  config: MllmConfig, scaled: Sequence[np.ndarray], sizes: Sequence[Size]
) -> dict[str, Any]:
  """Images that were cut row by row, whole again, and padded to the largest."""
  side = config.vision.image_size
  whole = []
  for cut, (width, height) in zip(scaled, sizes, strict=True):
    ratio = max(1, width / LONGEST, height / LONGEST)
    rows, columns = (-(-int(n / ratio) // side) for n in (height, width))
    joined = cut.reshape(rows, columns, 3, side, side).transpose(2, 0, 3, 1, 4)
    whole.append(joined.reshape(3, rows * side, columns * side))
  most = np.max([image.shape for image in whole], axis=0)
  padded = [
    np.pad(image, [(0, m - n) for m, n in zip(most, image.shape, strict=True)])
    for image in whole
  ]
  return {
    "pixel_values": torch.tensor(np.stack(padded)),
    "image_sizes": torch.tensor([image.shape[1:] for image in whole]),
  }


def find_grid(config: MllmConfig, size: Size) -> tuple[int, int]:
  """Rows and columns of the tiles of an image, by transformers' own rule."""
  width, height = size
  side = config.vision.image_size
  if config.names == "gemma4":
    patch, pool = config.vision.patch_size, config.merge
    found = get_aspect_ratio_preserving_size(
      height, width, patch, tiny.SOFT_TOKENS * pool**2, pool
    )
    return found[0] // side, found[1] // side
  rows, columns = smart_resize(height, width, side, *tiny_qwen.PIXELS)
  return rows // side, columns // side


def make_inputs(
  model: Any,
  config: MllmConfig,
  tiles: Sequence[np.ndarray],
  sizes: Sequence[Size] = (),
  tokens: np.ndarray | None = None,
) -> dict[str, Any]:
  """The keyword arguments of a model in transformers for the images of a row.

  Args:
    model: in torch.
    config: the same model's here.
    tiles: of each image.
    sizes: of the images, for the families that lay out an image by its size.
    tokens: of the row, for the families whose positions or masks follow from them.
  """
  if not tiles:
    return {}
  if config.vision.native and not config.vision.alternating:
    assert tokens is not None, "positions follow from images and text"
    grids = [find_grid(config, size) for size in sizes]
    make = make_placed_inputs if config.names == "gemma4" else make_native_inputs
    return {
      "mm_token_type_ids": torch.tensor(tokens[None] == config.image_token).int(),
      **make(config, list(zip(grids, tiles, strict=True))),
    }
  mean, deviation = map(np.array, (config.image_mean, config.image_std))
  scaled = [
    ((cut / 255.0 - mean) / deviation).transpose(0, 3, 1, 2).astype(np.float32)
    for cut in tiles
  ]
  if config.vision.alternating:
    return _make_rows(config, scaled, sizes)
  kind = model.config.model_type
  if kind == "gemma3":  # and which tokens are of an image
    assert tokens is not None, "tokens of an image see one another"
    return {
      "token_type_ids": torch.tensor(tokens[None] == config.image_token).int(),
      "pixel_values": torch.tensor(np.concatenate(scaled)),
    }
  if kind in tiny.MARKED:  # with an axis of rows
    return {"pixel_values": torch.tensor(np.concatenate(scaled)[None])}
  if kind not in ("llava_next", "llava_onevision"):
    return {"pixel_values": torch.tensor(np.concatenate(scaled))}
  assert len(sizes) == len(tiles), "the sizes say how an image's features are laid out"
  most = max(map(len, scaled))
  # Tiles are an axis of their own there; what is added is not read.
  padded = [np.pad(cut, [(0, most - len(cut))] + 3 * [(0, 0)]) for cut in scaled]
  inputs = {
    "pixel_values": torch.tensor(np.stack(padded)),
    "image_sizes": torch.tensor([(height, width) for width, height in sizes]),
  }
  if kind == "llava_onevision":
    inputs["batch_num_images"] = torch.tensor([len(tiles)])
  return inputs
