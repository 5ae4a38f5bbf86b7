"""LLaVA-OneVision in the form of transformers.

It is LLaVA-NeXT with a limit on an image's features: more are interpolated to fewer.
"""

from typing import Any

from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  find_projector_problems,
  read_llava_fields,
  refuse,
)

LIMIT = "anyres_max_"


def _read(config: Any) -> dict[str, Any]:
  problems = find_projector_problems(config)
  ratio = config.vision_aspect_ratio
  if not ratio.startswith(LIMIT) or not ratio.removeprefix(LIMIT).isdigit():
    problems.append(
      f"vision_aspect_ratio is {ratio!r}, only '{LIMIT}N', N a number, can be run"
    )
  refuse(problems)
  return {**read_llava_fields(config), "newline": True}


def _describe_processor(config: Any, image_token: str, features: int) -> dict[str, Any]:
  return {
    "processor_class": "LlavaOnevisionProcessor",
    "image_token": image_token,
    "num_image_tokens": features,
    "vision_aspect_ratio": config.vision_aspect_ratio,
    "vision_feature_select_strategy": config.vision_feature_select_strategy,
  }


FAMILY = ModelFamily(
  architecture="LlavaOnevisionForConditionalGeneration",
  read=_read,
  describe_processor=_describe_processor,
  counts=False,
)
