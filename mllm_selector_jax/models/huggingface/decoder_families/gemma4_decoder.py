"""The text model of Gemma 4, in its dense form."""

from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig, FullConfig
from mllm_selector_jax.models.huggingface.decoder_families.decoder_fields import (
  read_decoder_fields,
  read_layer_types,
  read_rope_fields,
)
from mllm_selector_jax.models.huggingface.field_checks import require
from mllm_selector_jax.types import InputError

# Fields that must be off, with what they stand for.
_ABSENT = {
  "enable_moe_block": "each token passes a few of many experts beside the MLP"
  " (26B-A4B)",
  "hidden_size_per_layer_input": "layers have embeddings of their own for each token"
  " (E2B, E4B)",
  "num_kv_shared_layers": "the last layers read the keys and values of earlier ones"
  " (E2B, E4B)",
}


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
  problems = [
    f"text_config.{name} is {value!r}: {reason}; only 0, False or null can be run"
    for name, reason in _ABSENT.items()
    if (value := getattr(config, name, None))
  ]
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
    post_norms=True,
    qk_norm=True,
    value_norm=True,
    qkv_bias=bias,
    out_bias=bias,
    names="gemma4",
    **read_layer_types(config),
    **fields,
  )
