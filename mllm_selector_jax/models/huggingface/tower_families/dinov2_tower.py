"""DINOv2."""

from typing import Any

from mllm_selector_jax.models.huggingface.field_checks import require
from mllm_selector_jax.models.huggingface.tower_families.tower_fields import (
  read_tower_fields,
)
from mllm_selector_jax.models.vision_config import VisionConfig


def read_dinov2(config: Any) -> VisionConfig:
  require("vision_config", config, use_swiglu_ffn=False)
  return read_tower_fields(
    config,
    mlp=int(config.hidden_size * config.mlp_ratio),
    pre_norm=False,
    patch_bias=True,
    qkv_bias=config.qkv_bias,
    layer_scale=True,
    mask_token=config.use_mask_token,
    names="dinov2",
  )
