"""Phi-3, Phi-3.5 and Phi-4-mini."""

from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families.decoder_fields import (
  read_decoder_fields,
)
from mllm_selector_jax.models.huggingface.field_checks import require


def read_phi3(config: Any, **fields: Any) -> DecoderConfig:
  """Phi-3: query, key and value are one layer in transformers, and gate and up, too."""
  require("text_config", config, resid_pdrop=0.0, embd_pdrop=0.0)
  return read_decoder_fields(
    config,
    window=config.sliding_window,
    fused=("qkv", "gate_up"),
    names="phi3",
    **fields,
  )
