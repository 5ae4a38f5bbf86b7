"""Qwen3-VL in the form of transformers, with a dense decoder: deepstack."""

from typing import Any

from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  refuse,
)
from mllm_selector_jax.models.huggingface.model_families.qwen2_vl_family import (
  IMAGE_MARKS,
  IMAGE_TOKEN,
  describe_older,
  name_processor,
  read_native_fields,
  read_native_tower,
  read_text_of_qwen3,
)
from mllm_selector_jax.models.vision_config import VisionConfig


def _read(config: Any) -> dict[str, Any]:
  indexes = list(config.vision_config.deepstack_visual_indexes)
  if indexes != sorted(set(indexes)):
    refuse(
      [
        f"vision_config.deepstack_visual_indexes is {indexes}, only increasing numbers"
        " can be run"
      ]
    )
  width = config.vision_config.out_hidden_size
  return {
    **read_native_fields(config, width, "qwen3_vl"),
    "deepstack": tuple(index + 1 for index in indexes),
  }


def read_tower_of_qwen3(config: Any) -> VisionConfig:
  side = round(config.num_position_embeddings**0.5)
  if side**2 != config.num_position_embeddings:
    refuse(
      [
        f"vision_config.num_position_embeddings is {config.num_position_embeddings},"
        " only a square can be run"
      ]
    )
  return read_native_tower(
    config,
    width=config.hidden_size,
    mlp=config.intermediate_size,
    patch_bias=True,
    position_side=side,
    names="qwen3_vl",
  )


def settle_by_text(config: Any, raw: dict[str, Any]) -> None:
  """Takes the text model's word on tied embeddings where the whole has none."""
  text = raw.get("text_config") or {}
  if "tie_word_embeddings" not in raw and "tie_word_embeddings" in text:
    config.tie_word_embeddings = bool(text["tie_word_embeddings"])


FAMILY = ModelFamily(
  architecture="Qwen3VLForConditionalGeneration",
  read=_read,
  read_tower=read_tower_of_qwen3,
  read_decoder=read_text_of_qwen3,
  describe_processor=name_processor("Qwen3VLProcessor"),
  describe_config=describe_older,
  image_token=IMAGE_TOKEN,
  image_marks=IMAGE_MARKS,
  writes_marks=True,
  counts=False,
  settle=settle_by_text,
)
