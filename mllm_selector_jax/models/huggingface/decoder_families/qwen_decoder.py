"""Qwen2 and Qwen3."""

from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families.decoder_fields import (
  read_decoder_fields,
  read_layer_types,
)


def read_qwen2(config: Any, **fields: Any) -> DecoderConfig:
  """Qwen2: queries, keys and values have biases."""
  fields["qkv_bias"] = True
  return read_decoder_fields(config, **read_layer_types(config), **fields)


def read_qwen3(config: Any, **fields: Any) -> DecoderConfig:
  """Qwen3: queries and keys pass a norm, head by head."""
  bias = bool(config.attention_bias)
  fields |= {"qkv_bias": bias, "out_bias": bias, "qk_norm": True}
  return read_decoder_fields(config, **read_layer_types(config), **fields)
