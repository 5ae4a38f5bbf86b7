"""Qwen3.5 in the form of transformers, with a dense decoder: Qwen3-VL's tower."""

from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families import DECODERS
from mllm_selector_jax.models.huggingface.model_families.family import ModelFamily
from mllm_selector_jax.models.huggingface.model_families.qwen2_vl_family import (
  IMAGE_MARKS,
  IMAGE_TOKEN,
  name_processor,
  read_native_fields,
  turn_by_axes,
)
from mllm_selector_jax.models.huggingface.model_families.qwen3_vl_family import (
  read_tower_of_qwen3,
  settle_by_text,
)

SECTIONS = (11, 11, 10)  # where a config names none


def _read(config: Any) -> dict[str, Any]:
  width = config.vision_config.out_hidden_size
  return read_native_fields(config, width, "qwen3_5")


def _read_decoder(config: Any, **fields: Any) -> DecoderConfig:
  decoder = DECODERS["qwen3_5_text"](config, **fields)
  return turn_by_axes(decoder, config, SECTIONS, interleaved=True)


FAMILY = ModelFamily(
  architecture="Qwen3_5ForConditionalGeneration",
  read=_read,
  read_tower=read_tower_of_qwen3,
  read_decoder=_read_decoder,
  describe_processor=name_processor("Qwen3VLProcessor"),
  image_token=IMAGE_TOKEN,
  image_marks=IMAGE_MARKS,
  writes_marks=True,
  counts=False,
  settle=settle_by_text,
)
