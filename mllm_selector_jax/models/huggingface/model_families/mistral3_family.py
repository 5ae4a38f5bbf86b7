"""Mistral 3 in the form of transformers: Pixtral's tower, whose patches are merged."""

import functools
from typing import Any

from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  settle_tying,
)
from mllm_selector_jax.models.huggingface.model_families.pixtral_family import (
  IMAGE_MARKS,
  IMAGE_TOKEN,
  describe_pixtral_config,
  describe_pixtral_processor,
  read_merge,
  read_pixtral_fields,
  read_pixtral_tower,
)

MERGE = 2  # patches along a feature's side, of all published models


def _read(config: Any) -> dict[str, Any]:
  problems = []
  if (merge := read_merge(config)) != MERGE:
    problems.append(f"spatial_merge_size is {merge!r}, only {MERGE} can be run")
  return {
    **read_pixtral_fields(config, problems),
    "merge": MERGE,
    "patch_norm": "rms_norm",
    "projector_epsilon": config.text_config.rms_norm_eps,
    "narrows": True,
    "names": "mistral3",
  }


FAMILY = ModelFamily(
  architecture="Mistral3ForConditionalGeneration",
  read=_read,
  read_tower=functools.partial(read_pixtral_tower, merge=MERGE),
  describe_processor=describe_pixtral_processor,
  describe_config=describe_pixtral_config,
  image_token=IMAGE_TOKEN,
  image_marks=IMAGE_MARKS,
  counts=False,
  settle=settle_tying,
)
