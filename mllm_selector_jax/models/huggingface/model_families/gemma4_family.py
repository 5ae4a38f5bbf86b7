"""Gemma 4 in the form of transformers, dense: 31B, E2B and E4B.

An image is read in its own proportions by a tower of native resolution, whose patches
are averaged. In layers with a window of the 31B, tokens of one image see one another in
both directions. E2B and E4B also take audio; the tower that reads it is no part of the
model here, and exports have it as the base has it.
"""

import re
from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families import read_decoder
from mllm_selector_jax.models.huggingface.field_checks import require
from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  refuse,
  settle_tying,
)
from mllm_selector_jax.models.huggingface.tensor_names import DECODER as DECODER_PREFIX
from mllm_selector_jax.models.vision_config import VisionConfig

TOWER, DECODER = "gemma4_vision", "gemma4_text"
IMAGE_TOKEN, BEGIN, END = "<|image|>", "<|image>", "<image|>"
# What older versions call fields of text_config, which none that knows the model reads.
_OLDER = ("rope_local_base_freq", "rope_theta", "partial_rotary_factor", "rope_scaling")


def _read_tower(config: Any) -> VisionConfig:
  if config is None:
    refuse(["vision_config is null: the model has no vision tower"])
  require(
    "vision_config",
    config,
    model_type=TOWER,
    attention_bias=False,
    num_key_value_heads=config.num_attention_heads,
    head_dim=config.hidden_size // config.num_attention_heads,
  )
  rope = dict(config.rope_parameters)
  if rope.get("rope_type") != "axial":
    refuse([f"vision_config: rope_type is {rope.get('rope_type')!r}, not 'axial'"])
  return VisionConfig(
    width=config.hidden_size,
    mlp=config.intermediate_size,
    layers=config.num_hidden_layers,
    heads=config.num_attention_heads,
    image_size=config.patch_size * config.pooling_kernel_size,
    patch_size=config.patch_size,
    activation=config.hidden_activation,
    epsilon=config.rms_norm_eps,
    class_token=False,
    pre_norm=False,
    post_norm=False,
    norm="rms_norm",
    native=True,
    qkv_bias=False,
    gated=True,
    bias=False,
    theta=float(rope["rope_theta"]),
    halves=True,
    post_norms=True,
    patch_linear=True,
    position_table=config.position_embedding_size,
    standardized=bool(config.standardize),
    clipped=bool(config.use_clipped_linears),
    names="gemma4",
  )


def _read_decoder(config: Any, **fields: Any) -> DecoderConfig:
  require("text_config", config, model_type=DECODER)
  return read_decoder(config, **fields)


def _read(config: Any) -> dict[str, Any]:
  if config.vision_config is None:
    return {}  # which `_read_tower` refuses
  return {
    "image_token": config.image_token_id,
    "feature_layer": -1,
    "select": "full",
    "merge": config.vision_config.pooling_kernel_size,
    "pools": True,
    "projector_norm": "bare_rms_norm",
    "projector_epsilon": config.vision_config.rms_norm_eps,
    "projector_bias": False,
    "projector_layers": 1,
    "both_ways": config.text_config.use_bidirectional_attention == "vision",
    "both_ways_in_windows": True,
    "names": "gemma4",
  }


def _find_carried(config: Any) -> str:
  """What reads audio, where the model takes some."""
  if config.audio_config is None:
    return ""
  return r"^(model\.)?(audio_tower|embed_audio)\."


def _find_unread(config: Any) -> str:
  """What published files have of keys and values in layers that read other ones."""
  text = config.text_config
  if not (count := text.num_kv_shared_layers):
    return ""
  layers = "|".join(map(str, range(text.num_hidden_layers)[-count:]))
  stem = re.escape(DECODER_PREFIX)
  return rf"^{stem}layers\.({layers})\.self_attn\.(k_proj|v_proj|k_norm|v_norm)\."


def _describe_config(value: dict[str, Any]) -> dict[str, Any]:
  """config.json with the published names of what differs between kinds of layers."""
  text = value["text_config"]
  for name in _OLDER:
    text.pop(name, None)
  layers = text.pop("per_layer_config", None) or {}
  number = text["layer_types"].index("full_attention")
  own = layers.get(number) or layers.get(str(number)) or {}
  text["global_head_dim"] = own.get("head_dim", text["head_dim"])
  text["num_global_key_value_heads"] = own.get("num_key_value_heads")
  return value


def _describe_processor(config: Any, image_token: str, features: int) -> dict[str, Any]:
  return {"processor_class": "Gemma4Processor"}


FAMILY = ModelFamily(
  architecture="Gemma4ForConditionalGeneration",
  read=_read,
  read_tower=_read_tower,
  read_decoder=_read_decoder,
  describe_processor=_describe_processor,
  describe_config=_describe_config,
  image_token=IMAGE_TOKEN,
  named_tokens={"boi_token": BEGIN, "eoi_token": END, "image_token": IMAGE_TOKEN},
  image_marks={"begin": ("boi_token", BEGIN), "end": ("eoi_token", END)},
  settle=settle_tying,
  counts=False,
  carried_part="part for audio",
  find_carried=_find_carried,
  find_unread=_find_unread,
)
