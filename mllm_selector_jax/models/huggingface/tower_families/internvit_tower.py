"""InternViT."""

from typing import Any

from mllm_selector_jax.models.huggingface.field_checks import require
from mllm_selector_jax.models.huggingface.tower_families.tower_fields import (
  read_tower_fields,
)
from mllm_selector_jax.models.vision_config import VisionConfig


def read_intern_vit(config: Any) -> VisionConfig:
  require(
    "vision_config",
    config,
    use_absolute_position_embeddings=True,
    use_mask_token=False,
  )
  return read_tower_fields(
    config,
    pre_norm=False,
    patch_bias=True,
    qkv_bias=config.attention_bias,
    norm=config.norm_type,
    qk_norm=config.use_qk_norm,
    layer_scale=True,
    post_norm=not config.use_mean_pooling,
    names="internvl_vision",
  )
