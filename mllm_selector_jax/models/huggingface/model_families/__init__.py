"""The families of whole models that can be run, by the model_type of config.json.

A family is a file of its own and a line of `FAMILIES`; docs/families.md says how one is
added. Towers and decoders are in `families`, for all families alike.
"""

from typing import Any

from mllm_selector_jax.models.huggingface.families import read_tower
from mllm_selector_jax.models.huggingface.model_families import (
  internvl_family,
  llava_family,
  llava_next_family,
  onevision_family,
  vipllava_family,
)
from mllm_selector_jax.models.huggingface.model_families.family import ModelFamily

FAMILIES: dict[str, ModelFamily] = {
  "llava": llava_family.FAMILY,
  "internvl": internvl_family.FAMILY,
  "llava_next": llava_next_family.FAMILY,
  "llava_onevision": onevision_family.FAMILY,
  "vipllava": vipllava_family.FAMILY,
}


def find_family(config: Any) -> ModelFamily:
  """The family of a transformers config of a whole model."""
  return FAMILIES[config.model_type]


def count_image_tokens(config: Any) -> int:
  """Features of one tile in a model of this transformers config.

  Raises:
    InputError: something of the config cannot be run.
  """
  fields = find_family(config).read(config)
  tower = read_tower(config.vision_config)
  features = tower.positions - (fields["select"] == "default")
  return features // fields.get("merge", 1) ** 2
