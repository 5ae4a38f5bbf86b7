"""The vision towers that can be run, by the model_type of their transformers config.

Each takes the tower's transformers config and gives ours. A new tower is a file and a
line of `TOWERS`; docs/families.md says what else to look at. Towers that read images
in their own sizes are those of one family alone, and in its file.
"""

from collections.abc import Callable
from typing import Any

from mllm_selector_jax.models.huggingface.field_checks import find_reader
from mllm_selector_jax.models.huggingface.tower_families.dinov2_tower import read_dinov2
from mllm_selector_jax.models.huggingface.tower_families.internvit_tower import (
  read_intern_vit,
)
from mllm_selector_jax.models.huggingface.tower_families.siglip_tower import read_siglip
from mllm_selector_jax.models.huggingface.tower_families.tower_fields import (
  read_tower_fields,
)
from mllm_selector_jax.models.vision_config import VisionConfig

TOWERS: dict[str, Callable[[Any], VisionConfig]] = {
  "clip_vision_model": read_tower_fields,
  "siglip_vision_model": read_siglip,
  "internvl_vision": read_intern_vit,
  "dinov2": read_dinov2,
}


def read_tower(config: Any) -> VisionConfig:
  """Our vision config from a transformers one of a family in `TOWERS`.

  Raises:
    InputError: another family, or something of it that cannot be run.
  """
  return find_reader("vision_config", config, TOWERS)(config)
