"""Idefics 3, SmolVLM and SmolVLM2 in the form of transformers: marked tiles.

SmolVLM is published as `idefics3`, SmolVLM2 as `smolvlm`; for images, the two are the
same but for their names.
"""

import functools
from typing import Any

import numpy as np

from mllm_selector_jax.models.huggingface.field_checks import read_side, require
from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  refuse,
)
from mllm_selector_jax.models.vision_config import VisionConfig

AROUND, WHOLE = "<fake_token_around_image>", "<global-img>"
MOST_ROWS = 8  # of tiles, and as many columns; `idefics3_images` refuses more
# How many boundaries torch computes at once, from 1 to the widest registers of a CPU.
_LANES = (1, 4, 8, 16)


def is_numbered_in_order(grid: int) -> bool:
  """Whether the patches of a tile have the positions 0, 1, 2, ... in transformers.

  It compares each patch's place, as a fraction of the side, with boundaries between the
  positions, in float32. For some numbers of patches it rounds a patch to its
  neighbour's position, and which ones depends on the processor that computes it.

  Args:
    grid: patches along a side of the tile.
  """
  step = 1 / grid
  place = np.arange(grid, dtype=np.float32) * (np.float32(1) / np.float32(grid))
  index = np.arange(grid - 1)
  for lanes in _LANES:
    first = (step + index // lanes * lanes * step).astype(np.float32)
    boundaries = (first.astype(np.float64) + index % lanes * step).astype(np.float32)
    found = np.searchsorted(boundaries, place, side="right")
    if not np.array_equal(found, np.arange(grid)):
      return False
  return True


def _read_tower(config: Any) -> VisionConfig:
  require("vision_config", config, num_channels=3)
  side, patch = (read_side(config, key) for key in ("image_size", "patch_size"))
  if not is_numbered_in_order(side // patch):
    refuse(
      [
        f"vision_config: image_size {side} and patch_size {patch} make"
        f" {side // patch} patches along a side, of which transformers gives some the"
        " positions of their neighbours"
      ]
    )
  return VisionConfig(
    width=config.hidden_size,
    mlp=config.intermediate_size,
    layers=config.num_hidden_layers,
    heads=config.num_attention_heads,
    image_size=side,
    patch_size=patch,
    activation=config.hidden_act,
    epsilon=config.layer_norm_eps,
    class_token=False,
    pre_norm=False,
    patch_bias=True,
    names="idefics3",
  )


def _read(config: Any) -> dict[str, Any]:
  vision, merge = config.vision_config, config.scale_factor
  grid = read_side(vision, "image_size") // read_side(vision, "patch_size")
  if merge < 1 or grid % merge:
    refuse(
      [
        f"scale_factor is {merge}, only a divisor of the {grid} patches along a"
        " tile's side can be run"
      ]
    )
  return {
    "image_token": config.image_token_id,
    "feature_layer": -1,
    "feature_norm": True,
    "select": "full",
    "merge": merge,
    "projector_bias": False,
    "projector_layers": 1,
    "names": "idefics3",
  }


def read_tile_marks(tokenizer: Any) -> dict[str, Any]:
  """The ids of the marks before tiles and of the line feeds, fields of `ImageTokens`.

  In SmolVLM's tokenizers a mark is a token; in Idefics 3's it is ordinary text.
  """

  def encode(text: str) -> tuple[int, ...]:
    # Each text stands between tokens which it is not merged with.
    ids = tokenizer(f"{AROUND}{text}{AROUND}", add_special_tokens=False)["input_ids"]
    return tuple(ids[1:-1])

  (around,) = tokenizer(AROUND, add_special_tokens=False)["input_ids"]
  places = range(1, MOST_ROWS + 1)
  return {
    "begin": (around, *encode(WHOLE)),
    "between": encode("\n"),
    "below": encode("\n\n"),
    "tags": tuple(
      tuple((around, *encode(f"<row_{row}_col_{column}>")) for column in places)
      for row in places
    ),
  }


def _describe_processor(
  config: Any, image_token: str, features: int, name: str
) -> dict[str, Any]:
  return {"processor_class": name, "image_seq_len": features}


def _describe_config(value: dict[str, Any]) -> dict[str, Any]:
  """config.json with the padding token under its published name."""
  value["pad_token_id"] = value.pop("_pad_token_id")
  return value


def _make_family(name: str) -> ModelFamily:
  """The family whose classes in transformers begin with this name."""
  return ModelFamily(
    architecture=f"{name}ForConditionalGeneration",
    read=_read,
    read_tower=_read_tower,
    describe_processor=functools.partial(_describe_processor, name=f"{name}Processor"),
    describe_config=_describe_config,
    image_marks={"end": ("fake_image_token", AROUND)},
    read_marks=read_tile_marks,
    counts=False,
  )


IDEFICS3, SMOLVLM = _make_family("Idefics3"), _make_family("SmolVLM")
