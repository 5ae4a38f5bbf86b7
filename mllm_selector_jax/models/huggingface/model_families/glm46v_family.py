"""GLM-4.6V-Flash in the form of transformers: for images, GLM-4.1V by other names."""

import dataclasses
from typing import Any

from mllm_selector_jax.models.huggingface.model_families import glm4v_family
from mllm_selector_jax.models.huggingface.model_families.qwen2_vl_family import (
  describe_older,
  name_processor,
)


def _describe_config(value: dict[str, Any]) -> dict[str, Any]:
  """config.json, whose vision part keeps its own model_type."""
  kind = value["vision_config"]["model_type"]
  value = describe_older(value)
  value["vision_config"]["model_type"] = kind
  return value


FAMILY = dataclasses.replace(
  glm4v_family.FAMILY,
  architecture="Glm46VForConditionalGeneration",
  describe_processor=name_processor("Glm46VProcessor"),
  describe_config=_describe_config,
)
