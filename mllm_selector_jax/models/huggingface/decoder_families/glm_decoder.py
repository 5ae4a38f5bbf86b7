"""GLM-4 (0414)."""

import dataclasses
from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families.decoder_fields import (
  read_decoder_fields,
  read_rope,
)


def read_glm4(config: Any, **fields: Any) -> DecoderConfig:
  """GLM-4: norms also follow attention and MLP, and neighbouring channels turn."""
  return read_decoder_fields(
    config,
    rope=dataclasses.replace(read_rope(config), neighbours=True),
    qkv_bias=bool(getattr(config, "attention_bias", True)),
    post_norms=True,
    fused=("gate_up",),
    names="glm4",
    **fields,
  )
