"""SigLIP, and the SigLIP2 of one resolution."""

from typing import Any

from mllm_selector_jax.models.huggingface.tower_families.tower_fields import (
  read_tower_fields,
)
from mllm_selector_jax.models.vision_config import VisionConfig


def read_siglip(config: Any) -> VisionConfig:
  return read_tower_fields(config, class_token=False, pre_norm=False, patch_bias=True)
