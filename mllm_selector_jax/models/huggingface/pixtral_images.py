"""The image processor that Pixtral and Mistral 3 share."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.model_families.pixtral_family import (
  IMAGE_MARKS,
  read_merge,
)
from mllm_selector_jax.models.huggingface.processor_checks import (
  PROCESSOR,
  describe_values,
  find_value_problems,
  mean_colour,
  read_processor_fields,
  read_sides,
  read_square,
  read_statistics,
  refuse_problems,
)
from mllm_selector_jax.types import ImageOptions


def read_pixtral_options(
  folder: Path, processor: Any, config: Any, pad: bool
) -> ImageOptions:
  """What the processor does, as options of ours; see `read_image_options`.

  Its own `patch_size` is not used: PixtralProcessor gives it the pixels of a token,
  those of a patch times `spatial_merge_size`.
  """
  patch, merge = config.vision_config.patch_size, read_merge(config)
  problems = find_value_problems(processor)
  if getattr(processor, "do_center_crop", None):
    problems.append("do_center_crop is on")
  sides = read_sides(processor, "size")
  edge = sides.get("longest_edge") or read_square(sides, {"height", "width"})
  if not isinstance(edge, int) or edge < 1:
    problems.append(
      f"size is {sides}; it must have longest_edge, or height and width that are equal,"
      " in pixels"
    )
  fields = read_processor_fields(folder)
  if fields:
    found = {**_DEFAULTS, **fields}
    wanted = {**_DEFAULTS, "patch_size": patch, "spatial_merge_size": merge}
    problems += [
      f"{name} of {PROCESSOR} is {found[name]!r}, only {value!r} fits config.json"
      for name, value in wanted.items()
      if found[name] != value
    ]
  refuse_problems(folder, processor, problems)
  assert isinstance(edge, int), "others were refused"
  mean, std = read_statistics(processor)
  return ImageOptions(
    size=patch * merge,
    mean=mean,
    std=std,
    background=mean_colour(mean),
    resample=int(processor.resample),
    form="pixtral",
    grid=1,
    rotate=True,
    longest_edge=edge,
  )


# Of PixtralProcessor, where processor_config.json has nothing else.
_DEFAULTS: dict[str, Any] = {
  "patch_size": 16,
  "spatial_merge_size": 1,
  **dict(IMAGE_MARKS.values()),
}


def describe_pixtral_options(options: ImageOptions) -> dict[str, Any]:
  """preprocessor_config.json of the processor that does as the options say.

  Its `patch_size` is the side of a token, so that the image processor makes whole
  tokens also where it is used without PixtralProcessor.
  """
  return {
    "image_processor_type": "PixtralImageProcessor",
    **describe_values(options),
    "size": {"longest_edge": options.longest_edge},
    "patch_size": {"height": options.size, "width": options.size},
  }
