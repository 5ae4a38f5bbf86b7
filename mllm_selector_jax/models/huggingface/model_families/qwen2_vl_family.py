"""Qwen2-VL in the form of transformers, and what its successors share with it."""

import dataclasses
from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families import DECODERS
from mllm_selector_jax.models.huggingface.field_checks import require
from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  refuse,
)
from mllm_selector_jax.models.rope import PATCH_THETA
from mllm_selector_jax.models.vision_config import VisionConfig

IMAGE_TOKEN = "<|image_pad|>"
IMAGE_MARKS = {
  "begin": ("vision_start_token", "<|vision_start|>"),
  "end": ("vision_end_token", "<|vision_end|>"),
}
EPSILON = 1e-6  # of all norms in tower and merger, whatever the config
SECTIONS = (16, 24, 24)  # where a config names none


def read_native_tower(config: Any, **fields: Any) -> VisionConfig:
  """Our vision config from one of Qwen's; `fields` are those in which they differ."""
  require("vision_config", config, in_channels=3, temporal_patch_size=2)
  rope = dict(config.rope_parameters or {})
  if rope.get("rope_theta", PATCH_THETA) != PATCH_THETA:
    refuse([f"vision_config: rope_theta can only be {PATCH_THETA:g}"])
  merge = config.spatial_merge_size
  return VisionConfig(
    layers=config.depth,
    heads=config.num_heads,
    image_size=config.patch_size * merge,
    patch_size=config.patch_size,
    activation=config.hidden_act,
    epsilon=EPSILON,
    class_token=False,
    pre_norm=False,
    post_norm=False,
    native=True,
    frames=config.temporal_patch_size,
    fused=True,
    **fields,
  )


def read_native_fields(
  config: Any, width: int, names: str, norm: str = "layer_norm"
) -> dict[str, Any]:
  """The fields of `MllmConfig` that Qwen's configurations decide.

  Args:
    config: of the whole model.
    width: what the merger makes of a feature, which the decoder must take.
    names: of `MllmConfig`.
    norm: the kind of the merger's norm.
  """
  wanted = config.text_config.hidden_size
  if width != wanted:
    refuse(
      [
        f"the vision tower gives features of {width} channels, but the decoder has"
        f" {wanted} (text_config.hidden_size)"
      ]
    )
  return {
    "image_token": config.image_token_id,
    "feature_layer": -1,
    "select": "full",
    "merge": config.vision_config.spatial_merge_size,
    "patch_norm": norm,
    "projector_epsilon": EPSILON,
    "projector_width": find_width(config.vision_config)
    * config.vision_config.spatial_merge_size**2,
    "names": names,
  }


def find_width(vision: Any) -> int:
  """Channels of a patch; Qwen2-VL calls `hidden_size` what leaves the merger."""
  return getattr(vision, "embed_dim", None) or vision.hidden_size


def read_text(config: Any, **fields: Any) -> DecoderConfig:
  """Our decoder config from the text config of Qwen2-VL or Qwen2.5-VL."""
  decoder = DECODERS["qwen2"](config, **fields)
  return turn_by_axes(decoder, config, SECTIONS, interleaved=False)


def read_text_of_qwen3(config: Any, **fields: Any) -> DecoderConfig:
  """Our decoder config from the text config of Qwen3-VL."""
  decoder = DECODERS["qwen3"](config, **fields)
  return turn_by_axes(decoder, config, (24, 20, 20), interleaved=True)


def turn_by_axes(
  decoder: DecoderConfig, config: Any, default: tuple[int, ...], interleaved: bool
) -> DecoderConfig:
  """The decoder whose channels turn by time, row and column.

  Args:
    decoder: without these axes.
    config: its transformers config.
    default: the sections of channels where the config names none.
    interleaved: as `Rope.interleaved`.
  """
  sections = tuple(config.rope_parameters.get("mrope_section") or default)
  rope = dataclasses.replace(decoder.rope, sections=sections, interleaved=interleaved)
  return dataclasses.replace(decoder, rope=rope)


def name_processor(name: str):
  """What writes processor_config.json of a processor of this class."""

  def describe(config: Any, image_token: str, features: int) -> dict[str, Any]:
    return {"processor_class": name}

  return describe


def describe_older(value: dict[str, Any]) -> dict[str, Any]:
  """config.json of models with the names that version 4 has for parts of them."""
  vision = value["vision_config"]
  vision["model_type"] = value["model_type"]
  vision.pop("rope_parameters", None)
  text = value["text_config"]
  rope = dict(text.pop("rope_parameters"))
  text["rope_theta"] = rope.pop("rope_theta")
  rope.pop("partial_rotary_factor", None)  # which stands beside them
  text["rope_scaling"] = rope
  return value


def describe_flat(value: dict[str, Any]) -> dict[str, Any]:
  """config.json with the text model's fields beside those of the whole."""
  value = describe_older(value)
  text = value.pop("text_config")
  if text["rope_scaling"]["rope_type"] == "default":
    text["rope_scaling"] = {**text["rope_scaling"], "type": "mrope"}
    del text["rope_scaling"]["rope_type"]
  vision = value.pop("vision_config")
  return {**text, **value, "vision_config": vision}


def _read(config: Any) -> dict[str, Any]:
  return read_native_fields(config, config.vision_config.hidden_size, "qwen2_vl")


def _read_tower(config: Any) -> VisionConfig:
  width = config.embed_dim
  mlp = int(width * config.mlp_ratio)
  return read_native_tower(config, width=width, mlp=mlp, names="qwen2_vl")


FAMILY = ModelFamily(
  architecture="Qwen2VLForConditionalGeneration",
  read=_read,
  read_tower=_read_tower,
  read_decoder=read_text,
  describe_processor=name_processor("Qwen2VLProcessor"),
  describe_config=describe_flat,
  image_token=IMAGE_TOKEN,
  image_marks=IMAGE_MARKS,
  writes_marks=True,
  counts=False,
)
