"""The image processor of InternVL, which transformers shares with GOT-OCR 2."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.processor_checks import (
  MOST_TILES,
  describe_values,
  find_length_problems,
  find_value_problems,
  mean_colour,
  read_sides,
  read_square,
  read_statistics,
  read_tile,
  refuse_problems,
)
from mllm_selector_jax.types import ImageOptions


def read_internvl_options(
  folder: Path, processor: Any, config: Any, pad: bool
) -> ImageOptions:
  """What the processor does, as options of ours; see `read_image_options`.

  `crop_to_patches` is not read: InternVLProcessor turns it on, whatever the file says.
  """
  image_size, patches = read_tile(config.vision_config)
  grid = round(patches * config.downsample_ratio)
  size = read_sides(processor, "size")
  side = read_square(size, {"height", "width"})
  problems = find_value_problems(processor)
  if side != image_size:
    problems.append(
      f"size is {size}, but vision_config.image_size of config.json is {image_size};"
      " it must be a height and a width of that"
    )
  fewest, most = processor.min_patches, processor.max_patches
  if not all(isinstance(value, int) for value in (fewest, most)):
    problems.append(f"min_patches is {fewest!r}, max_patches {most!r}; not numbers")
  elif not 1 <= fewest <= most <= MOST_TILES:
    problems.append(
      f"min_patches is {fewest}, max_patches {most}; allowed is"
      f" 1 <= min_patches <= max_patches <= {MOST_TILES}"
    )
  if grid < 1 or abs(patches * config.downsample_ratio - grid) > 1e-6:
    problems.append(
      f"downsample_ratio of config.json is {config.downsample_ratio}, which does not"
      f" divide the {patches} patches along a tile's side"
    )
  if config.vision_feature_select_strategy != "default":
    problems.append(
      "vision_feature_select_strategy of config.json is"
      f" {config.vision_feature_select_strategy!r}, only 'default' leaves a square of"
      " features"
    )
  fields = "vision_config and downsample_ratio"
  problems += find_length_problems(folder, grid**2, fields)
  refuse_problems(folder, processor, problems)
  mean, std = read_statistics(processor)
  return ImageOptions(
    size=image_size,
    mean=mean,
    std=std,
    background=mean_colour(mean),
    resample=int(processor.resample),
    form="internvl",
    grid=grid,
    min_tiles=fewest,
    max_tiles=most,
    rotate=True,
  )


def describe_internvl_options(options: ImageOptions) -> dict[str, Any]:
  """preprocessor_config.json of the processor that does as the options say."""
  return {
    "image_processor_type": "GotOcr2ImageProcessor",
    "processor_class": "InternVLProcessor",
    **describe_values(options),
    "size": {"height": options.size, "width": options.size},
    "crop_to_patches": True,
    "min_patches": options.min_tiles,
    "max_patches": options.max_tiles,
  }
