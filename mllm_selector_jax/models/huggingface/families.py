"""The decoders and vision towers that can be run, with a reader for each.

Each takes the family's transformers config and gives ours. A new family of the
Llama or the CLIP kind is a line of `DECODERS` or `TOWERS`; docs/families.md says
what else to look at. Whole models are in `model_families`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from mllm_selector_jax.models.config import DecoderConfig, VisionConfig
from mllm_selector_jax.models.rope import Rope
from mllm_selector_jax.types import InputError


def require(name: str, config: Any, **wanted: Any) -> None:
  """Refuses what this package cannot run, all of it in one message."""
  found = {key: getattr(config, key, value) for key, value in wanted.items()}
  problems = [
    f"{name}.{key} is {found[key]!r}, only {value!r} can be run"
    for key, value in wanted.items()
    if found[key] != value
  ]
  if problems:
    raise InputError("; ".join(problems))


def read_rope(config: Any) -> Rope:
  """The rotary embedding of a decoder's config."""
  rope = dict(getattr(config, "rope_parameters", None) or {})
  return _read_rope(rope, config.max_position_embeddings)


def _read_rope(rope: dict[str, Any], longest: int) -> Rope:
  """A rotary embedding of a decoder that was made for rows of `longest` tokens."""
  kind = rope.get("rope_type", "default")
  if rope.get("partial_rotary_factor", 1.0) != 1.0:
    raise InputError("text_config: partial_rotary_factor can only be 1")
  theta = float(rope.get("rope_theta") or 10000.0)
  if kind == "default":
    return Rope(theta)
  original = int(rope.get("original_max_position_embeddings") or longest)
  factor = float(rope.get("factor") or longest / original)
  if kind == "llama3":
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    return Rope(theta, kind, factor, original, low, high)
  if kind != "yarn":
    return Rope(theta, kind, factor)
  attention = rope.get("attention_factor")
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


def _read_decoder(config: Any, **fields: Any) -> DecoderConfig:
  activation = {} if "activation" in fields else {"hidden_act": "silu"}
  require("text_config", config, mlp_bias=False, **activation)
  heads, rope = config.num_attention_heads, fields.pop("rope", None)
  rope = rope or read_rope(config)
  return DecoderConfig(
    vocab=config.vocab_size,
    width=config.hidden_size,
    mlp=config.intermediate_size,
    layers=config.num_hidden_layers,
    heads=heads,
    kv_heads=config.num_key_value_heads,
    head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
    rope=rope,
    epsilon=config.rms_norm_eps,
    max_length=config.max_position_embeddings,
    limit="rope_type 'dynamic'" if rope.kind == "dynamic" else "",
    **fields,
  )


def _read_llama(config: Any, **fields: Any) -> DecoderConfig:
  bias = bool(getattr(config, "attention_bias", False))
  return _read_decoder(config, qkv_bias=bias, out_bias=bias, **fields)


def _read_mistral(config: Any, **fields: Any) -> DecoderConfig:
  return _read_decoder(config, window=config.sliding_window, **fields)


def _read_ministral3(config: Any, **fields: Any) -> DecoderConfig:
  """Ministral 3, up to the length from which its queries grow with their position."""
  decoder = _read_mistral(config, **fields)
  rope = config.rope_parameters
  scaled = rope.get("llama_4_scaling_beta")
  original = rope.get("original_max_position_embeddings")
  if not scaled or not original or original >= decoder.max_length:
    return decoder
  limit = f"llama_4_scaling_beta {scaled}"
  return dataclasses.replace(decoder, max_length=original, limit=limit)


def _read_qwen2(config: Any, **fields: Any) -> DecoderConfig:
  return _read_decoder(config, qkv_bias=True, **_read_layer_types(config), **fields)


def _read_qwen3(config: Any, **fields: Any) -> DecoderConfig:
  bias = bool(config.attention_bias)
  fields |= {"qkv_bias": bias, "out_bias": bias, "qk_norm": True}
  return _read_decoder(config, **_read_layer_types(config), **fields)


def _read_gemma3(config: Any, **fields: Any) -> DecoderConfig:
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
    kind: _read_rope(dict(rope), longest)
    for kind, rope in config.rope_parameters.items()
  }
  return _read_decoder(
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
    **_read_layer_types(config),
    **fields,
  )


def _read_layer_types(config: Any) -> dict[str, Any]:
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


def read_side(config: Any, key: str) -> int:
  """The side of a square that a config gives as a number or as a pair."""
  value = getattr(config, key, None)
  sides = set(value) if isinstance(value, list | tuple) else {value}
  side = next(iter(sides), None)
  if len(sides) != 1 or not isinstance(side, int):
    raise InputError(f"vision_config.{key} must be a single number")
  return side


def _read_tower(config: Any, **fields: Any) -> VisionConfig:
  require("vision_config", config, num_channels=3)
  fields.setdefault("mlp", getattr(config, "intermediate_size", None))
  return VisionConfig(
    width=config.hidden_size,
    layers=config.num_hidden_layers,
    heads=config.num_attention_heads,
    image_size=read_side(config, "image_size"),
    patch_size=read_side(config, "patch_size"),
    activation=config.hidden_act,
    epsilon=config.layer_norm_eps,
    **fields,
  )


def _read_siglip(config: Any) -> VisionConfig:
  return _read_tower(config, class_token=False, pre_norm=False, patch_bias=True)


def _read_intern_vit(config: Any) -> VisionConfig:
  require(
    "vision_config",
    config,
    use_absolute_position_embeddings=True,
    use_mask_token=False,
  )
  return _read_tower(
    config,
    pre_norm=False,
    patch_bias=True,
    qkv_bias=config.attention_bias,
    norm=config.norm_type,
    qk_norm=config.use_qk_norm,
    layer_scale=True,
    post_norm=not config.use_mean_pooling,
    names="internvl_vision",
  )


def _read_dinov2(config: Any) -> VisionConfig:
  require("vision_config", config, use_swiglu_ffn=False)
  return _read_tower(
    config,
    mlp=int(config.hidden_size * config.mlp_ratio),
    pre_norm=False,
    patch_bias=True,
    qkv_bias=config.qkv_bias,
    layer_scale=True,
    mask_token=config.use_mask_token,
    names="dinov2",
  )


DECODERS: dict[str, Callable[..., DecoderConfig]] = {
  "llama": _read_llama,
  "mistral": _read_mistral,
  "qwen2": _read_qwen2,
  "qwen3": _read_qwen3,
  "ministral3": _read_ministral3,
  "gemma3_text": _read_gemma3,
}
TOWERS: dict[str, Callable[[Any], VisionConfig]] = {
  "clip_vision_model": _read_tower,
  "siglip_vision_model": _read_siglip,
  "internvl_vision": _read_intern_vit,
  "dinov2": _read_dinov2,
}

# Towers that look like one of the others, with why they cannot be run.
REFUSED = {
  "siglip2_vision_model": "the NaFlex form of SigLIP2, which reads images in their own"
  " aspect ratio; the SigLIP2 checkpoints of one resolution are siglip_vision_model,"
  " which can be run",
  "dinov2_with_registers": "which has register tokens; dinov2 can be run",
}


def read_decoder(config: Any, **fields: Any) -> DecoderConfig:
  """Our decoder config from a transformers one.

  Args:
    config: of a family in `DECODERS`.
    **fields: of DecoderConfig that the whole model's config decides.

  Raises:
    InputError: another family, or something of it that cannot be run.
  """
  return _find("text_config", config, DECODERS)(config, **fields)


def read_tower(config: Any) -> VisionConfig:
  """Our vision config from a transformers one of a family in `TOWERS`.

  Raises:
    InputError: another family, or something of it that cannot be run.
  """
  return _find("vision_config", config, TOWERS)(config)


def _find(name: str, config: Any, families: dict[str, Callable]) -> Callable:
  if (reason := REFUSED.get(config.model_type)) is not None:
    raise InputError(f"{name}.model_type is {config.model_type!r}, {reason}")
  if config.model_type not in families:
    raise InputError(
      f"{name}.model_type is {config.model_type!r}; supported are {', '.join(families)}"
    )
  return families[config.model_type]
