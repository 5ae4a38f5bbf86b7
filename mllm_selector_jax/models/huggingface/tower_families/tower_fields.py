"""The fields that the transformers configs of most vision towers have in common."""

from typing import Any

from mllm_selector_jax.models.huggingface.field_checks import read_side, require
from mllm_selector_jax.models.vision_config import VisionConfig


def read_tower_fields(config: Any, **fields: Any) -> VisionConfig:
  require("vision_config", config, num_channels=3)
  fields.setdefault("mlp", getattr(config, "intermediate_size", None))
  return VisionConfig(
    width=config.hidden_size,
    layers=config.num_hidden_layers,
    heads=config.num_attention_heads,
    image_size=read_side(config, "image_size"),
    patch_size=read_side(config, "patch_size"),
    activation=config.hidden_act,
    epsilon=config.layer_norm_eps,
    **fields,
  )
