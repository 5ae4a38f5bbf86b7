"""Granite."""

from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families.decoder_fields import (
  read_decoder_fields,
  read_head_dim,
)


def read_granite(config: Any, **fields: Any) -> DecoderConfig:
  """Granite: numbers multiply embeddings, attention, what layers add, and logits."""
  bias = bool(config.attention_bias)
  return read_decoder_fields(
    config,
    qkv_bias=bias,
    out_bias=bias,
    query_scale=config.attention_multiplier * read_head_dim(config) ** 0.5,
    embedding_scale=float(config.embedding_multiplier),
    scales_features=True,
    residual_scale=float(config.residual_multiplier),
    output_scale=1 / config.logits_scaling,
    **fields,
  )
