"""The text model of Gemma 4, in its dense forms."""

from typing import Any

from mllm_selector_jax.models.decoder_config import (
  DecoderConfig,
  FullConfig,
  LayerInputs,
)
from mllm_selector_jax.models.huggingface.decoder_families.decoder_fields import (
  read_decoder_fields,
  read_layer_types,
  read_rope_fields,
)
from mllm_selector_jax.models.huggingface.field_checks import require
from mllm_selector_jax.types import InputError


def _read_inputs(config: Any) -> LayerInputs | None:
  """The embeddings that layers have of their own (E2B, E4B)."""
  width, padding = config.hidden_size_per_layer_input, config.pad_token_id
  if not width:
    return None
  if padding is None:
    raise InputError(
      "text_config.pad_token_id is null; the layers' own embeddings need the token that"
      " stands for images"
    )
  return LayerInputs(width, config.vocab_size_per_layer_input, padding)


def _find_kinds(config: Any) -> tuple[Any, Any]:
  """The configs of layers with a window and of those without."""
  try:
    near, wide = (
      config.per_layer_config[f"{kind}_attention"] for kind in ("sliding", "full")
    )
  except ValueError as error:
    raise InputError(
      f"text_config.per_layer_config differs between layers of one kind: {error}"
    ) from error
  require(
    "text_config.per_layer_config: full_attention",
    wide,
    intermediate_size=near.intermediate_size,
    num_attention_heads=near.num_attention_heads,
  )
  return near, wide


def read_gemma4(config: Any, **fields: Any) -> DecoderConfig:
  """Gemma 4: layers of two kinds, which differ in their heads, too."""
  problems = []
  if config.enable_moe_block:
    problems.append(
      "text_config.enable_moe_block is True: each token passes a few of many experts"
      " beside the MLP (26B-A4B); only False can be run"
    )
  if config.use_bidirectional_attention not in (None, "vision"):
    problems.append(
      "text_config.use_bidirectional_attention is"
      f" {config.use_bidirectional_attention!r}, only 'vision' and null can be run"
    )
  kinds = set(config.layer_types)
  if kinds != {"full_attention", "sliding_attention"}:
    problems.append(
      f"text_config.layer_types has only {', '.join(sorted(kinds))}; layers of both"
      " 'full_attention' and 'sliding_attention' are needed"
    )
  if problems:
    raise InputError("; ".join(problems))
  longest, bias = config.max_position_embeddings, bool(config.attention_bias)
  ropes = {
    kind: read_rope_fields(dict(rope), longest)
    for kind, rope in config.rope_parameters.items()
  }
  near, wide = _find_kinds(config)
  doubled = 2 * near.intermediate_size if config.use_double_wide_mlp else None
  return read_decoder_fields(
    near,
    full=FullConfig(
      kv_heads=wide.num_key_value_heads,
      head_dim=wide.head_dim,
      query_scale=wide.head_dim**0.5,
      keys_as_values=bool(config.attention_k_eq_v),
    ),
    rope=ropes["full_attention"],
    window_rope=ropes["sliding_attention"],
    activation=config.hidden_activation,
    query_scale=near.head_dim**0.5,  # scores are not divided
    embedding_scale=config.hidden_size**0.5,
    logit_cap=config.final_logit_softcapping,
    layer_scale=True,
    layer_inputs=_read_inputs(config),
    sharing=config.num_kv_shared_layers,
    sharing_mlp=doubled,
    post_norms=True,
    qk_norm=True,
    value_norm=True,
    qkv_bias=bias,
    out_bias=bias,
    names="gemma4",
    **read_layer_types(config),
    **fields,
  )
