"""GLM-4.1V in the form of transformers: GLM-4 with a tower of native resolution."""

import dataclasses
from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families import DECODERS
from mllm_selector_jax.models.huggingface.field_checks import read_side
from mllm_selector_jax.models.huggingface.model_families.family import ModelFamily
from mllm_selector_jax.models.huggingface.model_families.qwen2_vl_family import (
  describe_older,
  name_processor,
  read_native_fields,
  read_native_tower,
  turn_by_axes,
)
from mllm_selector_jax.models.vision_config import VisionConfig

IMAGE_TOKEN = "<|image|>"
IMAGE_MARKS = {
  "begin": ("image_start_token", "<|begin_of_image|>"),
  "end": ("image_end_token", "<|end_of_image|>"),
}
SECTIONS = (8, 12, 12)  # where a config names none
EPSILON = 1e-5  # of the merger's norm, whatever the config


def _read(config: Any) -> dict[str, Any]:
  vision = config.vision_config
  return {
    **read_native_fields(config, vision.out_hidden_size, "glm4v"),
    "feature_norm": True,
    "patch_norm": None,
    "projector_epsilon": EPSILON,
    "projector_width": vision.intermediate_size,
    "projector_gated": True,
    "projector_activation": vision.hidden_act,
  }


def _read_tower(config: Any) -> VisionConfig:
  tower = read_native_tower(
    config,
    width=config.hidden_size,
    mlp=config.out_hidden_size,
    norm="rms_norm",
    gated=True,
    patch_bias=True,
    qkv_bias=bool(config.attention_bias),
    bias=False,
    position_side=read_side(config, "image_size") // read_side(config, "patch_size"),
    bicubic=True,
    names="glm4v",
  )
  epsilon = config.rms_norm_eps
  return dataclasses.replace(tower, pre_norm=True, post_norm=True, epsilon=epsilon)


def _read_text(config: Any, **fields: Any) -> DecoderConfig:
  decoder = DECODERS["glm4"](config, **fields)
  return turn_by_axes(decoder, config, SECTIONS, interleaved=False)


FAMILY = ModelFamily(
  architecture="Glm4vForConditionalGeneration",
  read=_read,
  read_tower=_read_tower,
  read_decoder=_read_text,
  describe_processor=name_processor("Glm4vProcessor"),
  describe_config=describe_older,
  image_token=IMAGE_TOKEN,
  image_marks=IMAGE_MARKS,
  writes_marks=True,
  counts=False,
)
