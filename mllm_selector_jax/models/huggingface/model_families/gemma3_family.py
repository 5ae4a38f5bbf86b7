"""Gemma 3 in the form of transformers: a square an image, whose patches are pooled.

Tokens of one image see one another in both directions.
"""

import math
from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families import read_decoder
from mllm_selector_jax.models.huggingface.field_checks import read_side
from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  refuse,
  settle_tying,
)
from mllm_selector_jax.models.huggingface.tower_families import read_tower
from mllm_selector_jax.models.vision_config import VisionConfig

TOWER, DECODER = "siglip_vision_model", "gemma3_text"
IMAGE_TOKEN, BEGIN, END = "<image_soft_token>", "<start_of_image>", "<end_of_image>"
LINES = "\n\n"  # before and after an image, which the processor adds


def _read_tower(config: Any) -> VisionConfig:
  if config.model_type != TOWER:
    refuse(
      [f"vision_config.model_type is {config.model_type!r}, only {TOWER!r} can be run"]
    )
  return read_tower(config)


def _read_decoder(config: Any, **fields: Any) -> DecoderConfig:
  if config.model_type != DECODER:
    refuse(
      [f"text_config.model_type is {config.model_type!r}, only {DECODER!r} can be run"]
    )
  return read_decoder(config, **fields)


def _read(config: Any) -> dict[str, Any]:
  vision, tokens = config.vision_config, config.mm_tokens_per_image
  grid = read_side(vision, "image_size") // read_side(vision, "patch_size")
  side = math.isqrt(tokens) if isinstance(tokens, int) and tokens > 0 else 0
  if not side or side**2 != tokens or grid % side:
    refuse(
      [
        f"mm_tokens_per_image is {tokens!r}, only the square of a divisor of the {grid}"
        " patches along an image's side can be run"
      ]
    )
  return {
    "image_token": config.image_token_id,
    "feature_layer": -1,
    "feature_norm": True,
    "select": "full",
    "merge": grid // side,
    "pools": True,
    "projector_norm": "offset_rms_norm",
    "projector_epsilon": vision.layer_norm_eps,
    "projector_bias": False,
    "projector_layers": 1,
    "both_ways": True,
    "names": "gemma3",
  }


def read_lines(tokenizer: Any) -> dict[str, Any]:
  """What a chat template writes for an image, and the line feeds around it.

  These join the line feeds of the text beside them, as one token.
  """
  name = getattr(tokenizer, "boi_token", None) or BEGIN
  return {"mark": tokenizer.convert_tokens_to_ids(name), "around": (LINES, LINES)}


def _describe_processor(config: Any, image_token: str, features: int) -> dict[str, Any]:
  return {"processor_class": "Gemma3Processor", "image_seq_length": features}


FAMILY = ModelFamily(
  architecture="Gemma3ForConditionalGeneration",
  read=_read,
  read_tower=_read_tower,
  read_decoder=_read_decoder,
  describe_processor=_describe_processor,
  image_token=IMAGE_TOKEN,
  named_tokens={"boi_token": BEGIN, "eoi_token": END, "image_token": IMAGE_TOKEN},
  image_marks={"begin": ("boi_token", BEGIN), "end": ("eoi_token", END)},
  read_marks=read_lines,
  settle=settle_tying,
  counts=False,
)
