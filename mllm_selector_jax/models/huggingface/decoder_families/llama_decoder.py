"""Llama and Vicuna."""

from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families.decoder_fields import (
  read_decoder_fields,
)


def read_llama(config: Any, **fields: Any) -> DecoderConfig:
  """Llama and Vicuna, whose attention may have biases."""
  bias = bool(getattr(config, "attention_bias", False))
  return read_decoder_fields(config, qkv_bias=bias, out_bias=bias, **fields)
