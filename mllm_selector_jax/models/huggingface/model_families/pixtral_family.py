"""Pixtral in the form of transformers: LLaVA whose tower takes images as they are."""

from typing import Any

from mllm_selector_jax.models.huggingface.field_checks import read_side, require
from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  refuse,
)
from mllm_selector_jax.models.rope import PATCH_THETA
from mllm_selector_jax.models.vision_config import VisionConfig

IMAGE_TOKEN = "[IMG]"
# A row of features ends with the first mark, the last row with the second.
IMAGE_MARKS = {
  "between": ("image_break_token", "[IMG_BREAK]"),
  "end": ("image_end_token", "[IMG_END]"),
}
EPSILON = 1e-5  # of the norms in the tower, which no config states


def read_merge(config: Any) -> int:
  """Patches along the side of a feature."""
  return getattr(config, "spatial_merge_size", 1)


def read_pixtral_tower(config: Any, merge: int = 1) -> VisionConfig:
  """Our vision config from Pixtral's.

  Args:
    config: of the tower.
    merge: patches along the side of a feature.
  """
  require("vision_config", config, model_type="pixtral", num_channels=3)
  rope = dict(config.rope_parameters or {})
  if rope.get("rope_theta", PATCH_THETA) != PATCH_THETA:
    refuse([f"vision_config: rope_theta can only be {PATCH_THETA:g}"])
  patch = read_side(config, "patch_size")
  return VisionConfig(
    width=config.hidden_size,
    mlp=config.intermediate_size,
    layers=config.num_hidden_layers,
    heads=config.num_attention_heads,
    image_size=patch * merge,
    patch_size=patch,
    activation=config.hidden_act,
    epsilon=EPSILON,
    class_token=False,
    qkv_bias=False,
    norm="rms_norm",
    post_norm=False,
    native=True,
    gated=True,
    bias=False,
    alternating=True,
    names="pixtral",
  )


def read_pixtral_fields(config: Any, problems: list[str]) -> dict[str, Any]:
  """What the configurations of Pixtral and Mistral 3 say in the same way.

  Args:
    config: of the whole model.
    problems: what else of it cannot be run.
  """
  layer = config.vision_feature_layer
  if layer != -1:
    problems = [*problems, f"vision_feature_layer is {layer!r}, only -1 can be run"]
  refuse(problems)
  return {
    "image_token": config.image_token_id,
    "feature_layer": -1,
    "select": "full",
    "projector_activation": config.projector_hidden_act,
    "projector_bias": config.multimodal_projector_bias,
  }


def describe_pixtral_processor(
  config: Any, image_token: str, features: int
) -> dict[str, Any]:
  """processor_config.json of Pixtral's processor."""
  return {
    "processor_class": "PixtralProcessor",
    "image_token": image_token,
    **dict(IMAGE_MARKS.values()),
    "patch_size": read_side(config.vision_config, "patch_size"),
    "spatial_merge_size": read_merge(config),
  }


def describe_pixtral_config(value: dict[str, Any]) -> dict[str, Any]:
  """config.json with the name that version 4 has for the tower's wavelengths."""
  vision = value["vision_config"]
  vision.pop("rope_parameters", None)
  vision["rope_theta"] = PATCH_THETA
  return value


def _read(config: Any) -> dict[str, Any]:
  select = config.vision_feature_select_strategy
  problems = []
  if select != "full":
    problems.append(
      f"vision_feature_select_strategy is {select!r}, only 'full' can be run with a"
      " pixtral tower"
    )
  return read_pixtral_fields(config, problems)


FAMILY = ModelFamily(
  architecture="LlavaForConditionalGeneration",
  read=_read,
  read_tower=read_pixtral_tower,
  describe_processor=describe_pixtral_processor,
  describe_config=describe_pixtral_config,
  image_token=IMAGE_TOKEN,
  image_marks=IMAGE_MARKS,
)
