"""LLaVA-NeXT (LLaVA-1.6) in the form of transformers: tiles, and a learned newline."""

from typing import Any

from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  read_llava_fields,
)
from mllm_selector_jax.models.huggingface.model_families.llava_family import (
  describe_llava_processor,
)


def _read(config: Any) -> dict[str, Any]:
  return {**read_llava_fields(config), "newline": True}


def _describe_processor(config: Any, image_token: str, features: int) -> dict[str, Any]:
  described = describe_llava_processor(config, image_token, features)
  return {**described, "processor_class": "LlavaNextProcessor"}


FAMILY = ModelFamily(
  architecture="LlavaNextForConditionalGeneration",
  read=_read,
  describe_processor=_describe_processor,
)
