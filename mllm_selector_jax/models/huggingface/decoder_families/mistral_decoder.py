"""Mistral and Ministral 3."""

import dataclasses
from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families.decoder_fields import (
  read_decoder_fields,
)


def read_mistral(config: Any, **fields: Any) -> DecoderConfig:
  """Mistral, which may have a window in all layers."""
  return read_decoder_fields(config, window=config.sliding_window, **fields)


def read_ministral3(config: Any, **fields: Any) -> DecoderConfig:
  """Ministral 3, up to the length from which its queries grow with their position."""
  decoder = read_mistral(config, **fields)
  rope = config.rope_parameters
  scaled = rope.get("llama_4_scaling_beta")
  original = rope.get("original_max_position_embeddings")
  if not scaled or not original or original >= decoder.max_length:
    return decoder
  limit = f"llama_4_scaling_beta {scaled}"
  return dataclasses.replace(decoder, max_length=original, limit=limit)
