"""Qwen2.5-VL in the form of transformers: most layers of its tower see windows."""

from typing import Any

from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  refuse,
)
from mllm_selector_jax.models.huggingface.model_families.qwen2_vl_family import (
  IMAGE_MARKS,
  IMAGE_TOKEN,
  describe_flat,
  name_processor,
  read_native_fields,
  read_native_tower,
  read_text,
)
from mllm_selector_jax.models.vision_config import VisionConfig


def _read(config: Any) -> dict[str, Any]:
  width = config.vision_config.out_hidden_size
  return read_native_fields(config, width, "qwen2_vl", norm="rms_norm")


def _read_tower(config: Any) -> VisionConfig:
  window = config.window_size // config.spatial_merge_size // config.patch_size
  if window < 1:
    refuse(
      [
        f"vision_config.window_size is {config.window_size}, smaller than the"
        f" {config.spatial_merge_size * config.patch_size} pixels of a feature"
      ]
    )
  return read_native_tower(
    config,
    width=config.hidden_size,
    mlp=config.intermediate_size,
    norm="rms_norm",
    gated=True,
    window=window,
    global_layers=tuple(config.fullatt_block_indexes),
    names="qwen2_5_vl",
  )


FAMILY = ModelFamily(
  architecture="Qwen2_5_VLForConditionalGeneration",
  read=_read,
  read_tower=_read_tower,
  read_decoder=read_text,
  describe_processor=name_processor("Qwen2_5_VLProcessor"),
  describe_config=describe_flat,
  image_token=IMAGE_TOKEN,
  image_marks=IMAGE_MARKS,
  writes_marks=True,
  counts=False,
)
