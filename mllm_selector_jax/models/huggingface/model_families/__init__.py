"""The families of whole models that can be run, by the model_type of config.json.

A family is a file of its own and a line of `FAMILIES`; docs/families.md says how one is
added. Decoders and towers that may stand in several families are in
`decoder_families` and `tower_families`.
"""

from typing import Any

from mllm_selector_jax.models.huggingface.model_families import (
  gemma3_family,
  gemma4_family,
  glm4v_family,
  glm46v_family,
  idefics3_family,
  internvl_family,
  llava_family,
  llava_next_family,
  mistral3_family,
  onevision_family,
  pixtral_family,
  qwen2_5_vl_family,
  qwen2_vl_family,
  qwen3_5_family,
  qwen3_vl_family,
  qwen3_vl_moe_family,
  vipllava_family,
)
from mllm_selector_jax.models.huggingface.model_families.family import ModelFamily

FAMILIES: dict[str, ModelFamily] = {
  "llava": llava_family.FAMILY,
  "internvl": internvl_family.FAMILY,
  "llava_next": llava_next_family.FAMILY,
  "llava_onevision": onevision_family.FAMILY,
  "vipllava": vipllava_family.FAMILY,
  "qwen2_vl": qwen2_vl_family.FAMILY,
  "qwen2_5_vl": qwen2_5_vl_family.FAMILY,
  "qwen3_vl": qwen3_vl_family.FAMILY,
  "qwen3_5": qwen3_5_family.FAMILY,
  "glm4v": glm4v_family.FAMILY,
  "glm46v": glm46v_family.FAMILY,
  "qwen3_vl_moe": qwen3_vl_moe_family.FAMILY,
  "mistral3": mistral3_family.FAMILY,
  "idefics3": idefics3_family.IDEFICS3,
  "smolvlm": idefics3_family.SMOLVLM,
  "gemma3": gemma3_family.FAMILY,
  "gemma4": gemma4_family.FAMILY,
}
PIXTRAL = "pixtral"  # not a model_type of whole models


def name_family(config: Any) -> str:
  """The model_type of a whole model, or `PIXTRAL`: a "llava" with Pixtral's tower."""
  tower = getattr(config.vision_config, "model_type", None)
  if (config.model_type, tower) == ("llava", PIXTRAL):
    return PIXTRAL
  return config.model_type


def find_family(config: Any) -> ModelFamily:
  """The family of a transformers config of a whole model."""
  name = name_family(config)
  return pixtral_family.FAMILY if name == PIXTRAL else FAMILIES[name]


def count_image_tokens(config: Any) -> int:
  """Features of one tile in a model of this transformers config.

  Raises:
    InputError: something of the config cannot be run.
  """
  family = find_family(config)
  fields, tower = family.read(config), family.read_tower(config.vision_config)
  features = tower.positions - (fields["select"] == "default")
  return features // fields.get("merge", 1) ** 2
