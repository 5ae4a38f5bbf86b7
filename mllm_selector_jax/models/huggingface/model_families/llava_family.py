"""LLaVA-1.5 in the form of transformers: one tile an image."""

from typing import Any

from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  read_llava_fields,
)
from mllm_selector_jax.models.huggingface.tower_families import read_tower


def describe_llava_processor(
  config: Any, image_token: str, features: int
) -> dict[str, Any]:
  """processor_config.json of LLaVA's processor."""
  tower = read_tower(config.vision_config)
  return {
    "processor_class": "LlavaProcessor",
    "image_token": image_token,
    # Without the class token's the processor counts an image one token short.
    "num_additional_image_tokens": int(tower.class_token),
    "patch_size": config.vision_config.patch_size,
    "vision_feature_select_strategy": "default"
    if features < tower.positions
    else "full",
  }


FAMILY = ModelFamily(
  architecture="LlavaForConditionalGeneration",
  read=read_llava_fields,
  describe_processor=describe_llava_processor,
)
