"""Gemma 3."""

from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families.decoder_fields import (
  read_decoder_fields,
  read_layer_types,
  read_rope_fields,
)
from mllm_selector_jax.models.huggingface.field_checks import require


def read_gemma3(config: Any, **fields: Any) -> DecoderConfig:
  """Gemma 3: norms around both halves of a layer, and windows in most layers.

  Two kinds of layers have wavelengths of their own.
  """
  require(
    "text_config",
    config,
    final_logit_softcapping=None,
    attn_logit_softcapping=None,
    use_bidirectional_attention=False,
  )
  longest, bias = config.max_position_embeddings, bool(config.attention_bias)
  ropes = {
    kind: read_rope_fields(dict(rope), longest)
    for kind, rope in config.rope_parameters.items()
  }
  return read_decoder_fields(
    config,
    rope=ropes["full_attention"],
    window_rope=ropes["sliding_attention"],
    activation=config.hidden_activation,
    query_scale=(config.head_dim / config.query_pre_attn_scalar) ** 0.5,
    embedding_scale=config.hidden_size**0.5,
    norm_offset=True,
    post_norms=True,
    qk_norm=True,
    qkv_bias=bias,
    out_bias=bias,
    names="gemma3",
    **read_layer_types(config),
    **fields,
  )
