"""The fields that the transformers configs of most decoders have in common."""

import dataclasses
import math
from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.field_checks import require
from mllm_selector_jax.models.rope import Rope
from mllm_selector_jax.types import InputError


def read_rope(config: Any) -> Rope:
  """The rotary embedding of a decoder's config."""
  rope = dict(getattr(config, "rope_parameters", None) or {})
  return read_rope_fields(rope, config.max_position_embeddings)


def read_rope_fields(rope: dict[str, Any], longest: int) -> Rope:
  """A rotary embedding of a decoder that was made for rows of `longest` tokens."""
  share = float(rope.get("partial_rotary_factor", 1.0))
  return dataclasses.replace(_read_waves(rope, longest), share=share)


def _read_waves(rope: dict[str, Any], longest: int) -> Rope:
  kind = rope.get("rope_type", "default")
  theta = float(rope.get("rope_theta") or 10000.0)
  if kind == "default":
    return Rope(theta)
  original = int(rope.get("original_max_position_embeddings") or longest)
  factor = float(rope.get("factor") or longest / original)
  if kind == "llama3":
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    return Rope(theta, kind, factor, original, low, high)
  attention = rope.get("attention_factor")
  if kind == "longrope":
    factors = tuple(map(float, rope["short_factor"]))
    return Rope(theta, kind, factor, original, attention=attention, factors=factors)
  if kind != "yarn":
    return Rope(theta, kind, factor)
  scale, scale_all = rope.get("mscale"), rope.get("mscale_all_dim")
  if attention is None and scale and scale_all:
    first, second = (
      0.1 * s * math.log(max(factor, 1.0)) + 1.0 for s in (scale, scale_all)
    )
    attention = first / second
  return Rope(
    theta,
    kind,
    factor,
    original,
    float(rope.get("beta_slow") or 1),
    float(rope.get("beta_fast") or 32),
    attention,
    bool(rope.get("truncate", True)),
  )


def read_head_dim(config: Any) -> int:
  """Channels of a head."""
  stated = getattr(config, "head_dim", None)
  return stated or config.hidden_size // config.num_attention_heads


def read_decoder_fields(config: Any, **fields: Any) -> DecoderConfig:
  activation = {} if "activation" in fields else {"hidden_act": "silu"}
  require("text_config", config, mlp_bias=False, **activation)
  rope = fields.pop("rope", None) or read_rope(config)
  length, limit = config.max_position_embeddings, ""
  if rope.kind == "dynamic":
    limit = "rope_type 'dynamic'"
  elif rope.kind == "longrope" and rope.original < length:
    length, limit = rope.original, "rope_type 'longrope'"
  return DecoderConfig(
    vocab=config.vocab_size,
    width=config.hidden_size,
    mlp=config.intermediate_size,
    layers=config.num_hidden_layers,
    heads=config.num_attention_heads,
    kv_heads=config.num_key_value_heads,
    head_dim=read_head_dim(config),
    rope=rope,
    epsilon=config.rms_norm_eps,
    max_length=length,
    limit=limit,
    **fields,
  )


def read_layer_types(config: Any) -> dict[str, Any]:
  """The window of a decoder whose layers are of two kinds, and the layers without it.

  Raises:
    InputError: a layer is of a third kind.
  """
  kinds = list(getattr(config, "layer_types", None) or ())
  others = set(kinds) - {"full_attention", "sliding_attention"}
  if others:
    raise InputError(
      f"text_config.layer_types has {', '.join(sorted(others))}, only 'full_attention'"
      " and 'sliding_attention' can be run"
    )
  if "sliding_attention" not in kinds:
    return {}
  full = tuple(n for n, kind in enumerate(kinds) if kind == "full_attention")
  return {"window": config.sliding_window, "full_layers": full}
