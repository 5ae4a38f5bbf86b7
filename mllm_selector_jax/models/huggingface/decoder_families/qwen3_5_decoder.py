"""The text model of Qwen3.5."""

from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig, LinearConfig
from mllm_selector_jax.models.huggingface.decoder_families.decoder_fields import (
  read_decoder_fields,
)
from mllm_selector_jax.types import InputError

_LINEAR, _FULL = "linear_attention", "full_attention"


def read_qwen3_5(config: Any, **fields: Any) -> DecoderConfig:
  """Qwen3.5: linear attention in most layers, attention with a gate in the others."""
  kinds = list(config.layer_types)
  others = sorted(set(kinds) - {_LINEAR, _FULL})
  if others or _FULL not in kinds:
    raise InputError(
      f"text_config.layer_types has {', '.join(others) or 'no full_attention'}; layers"
      f" can be {_LINEAR!r} and {_FULL!r}, and one must be of the second kind"
    )
  layers = tuple(n for n, kind in enumerate(kinds) if kind == _LINEAR)
  linear = LinearConfig(
    key_heads=config.linear_num_key_heads,
    value_heads=config.linear_num_value_heads,
    key_dim=config.linear_key_head_dim,
    value_dim=config.linear_value_head_dim,
    taps=config.linear_conv_kernel_dim,
  )
  bias = bool(config.attention_bias)
  return read_decoder_fields(
    config,
    qkv_bias=bias,
    out_bias=bias,
    qk_norm=True,
    norm_offset=True,
    output_gate=True,
    linear=linear if layers else None,
    linear_layers=layers,
    names="qwen3_5",
    **fields,
  )
