"""The image processor of Idefics 3 and SmolVLM."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.processor_checks import (
  MOST_TILES,
  describe_values,
  find_length_problems,
  find_value_problems,
  mean_colour,
  read_sides,
  read_statistics,
  read_tile,
  refuse_problems,
)
from mllm_selector_jax.types import ImageOptions

# transformers limits the longest edge to so many pixels, after it has scaled to it.
LONGEST_EDGE = 4096
EDGE = "longest_edge"


def read_idefics3_options(
  folder: Path, processor: Any, config: Any, pad: bool
) -> ImageOptions:
  """What the processor does, as options of ours; see `read_image_options`.

  `do_pad` is not read: all tiles have one size, so that there is nothing to be padded.
  """
  side, patches = read_tile(config.vision_config)
  grid = patches // config.scale_factor
  split = bool(processor.do_image_splitting)
  size, tile = (read_sides(processor, key) for key in ("size", "max_image_size"))
  edge = size.get(EDGE)
  problems = find_value_problems(processor)
  if set(size) != {EDGE} or not isinstance(edge, int) or not 1 <= edge <= LONGEST_EDGE:
    problems.append(
      f"size is {size}; it must have {EDGE} alone, of 1 to {LONGEST_EDGE} pixels"
    )
  elif split and (-(-edge // side)) ** 2 > MOST_TILES:
    problems.append(
      f"size is {size}, by which an image has up to {-(-edge // side)} x"
      f" {-(-edge // side)} tiles; allowed are {MOST_TILES}"
    )
  if tile != {EDGE: side}:
    problems.append(
      f"max_image_size is {tile}, but vision_config.image_size of config.json is"
      f" {side}; it must be {{{EDGE!r}: {side}}}"
    )
  fields = "vision_config and scale_factor"
  problems += find_length_problems(folder, grid**2, fields, "image_seq_len")
  refuse_problems(folder, processor, problems)
  assert isinstance(edge, int), "others were refused"
  mean, std = read_statistics(processor)
  return ImageOptions(
    size=side,
    mean=mean,
    std=std,
    background=mean_colour(mean),
    resample=int(processor.resample),
    form=config.model_type,
    grid=grid,
    rotate=True,
    longest_edge=edge,
    split=split,
  )


def describe_idefics3_options(options: ImageOptions) -> dict[str, Any]:
  """preprocessor_config.json of the processor that does as the options say."""
  return {
    "image_processor_type": "Idefics3ImageProcessor",
    **describe_values(options),
    "size": {EDGE: options.longest_edge},
    "do_image_splitting": options.split,
    "max_image_size": {EDGE: options.size},
    "do_pad": True,
  }


def describe_smolvlm_options(options: ImageOptions) -> dict[str, Any]:
  """As `describe_idefics3_options`, for SmolVLM's processor, which does the same."""
  kind = {"image_processor_type": "SmolVLMImageProcessor"}
  return {**describe_idefics3_options(options), **kind}
