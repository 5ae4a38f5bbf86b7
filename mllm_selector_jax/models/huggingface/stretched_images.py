"""The image processor of Gemma 3, which stretches an image to a square."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.model_families import count_image_tokens
from mllm_selector_jax.models.huggingface.processor_checks import (
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


def read_stretched_options(
  folder: Path, processor: Any, config: Any, pad: bool
) -> ImageOptions:
  """What the processor does, as options of ours; see `read_image_options`."""
  side, _ = read_tile(config.vision_config)
  tokens = count_image_tokens(config)
  problems = find_value_problems(processor)
  size = read_sides(processor, "size")
  if read_square(size, {"height", "width"}) != side:
    problems.append(f"size is {size}, but the vision tower reads {side} x {side}")
  if getattr(processor, "do_pan_and_scan", None):
    problems.append(
      "do_pan_and_scan is on, which adds parts of oblong images as further images; set"
      " it to false, as it is published"
    )
  problems += find_length_problems(folder, tokens, "mm_tokens_per_image")
  refuse_problems(folder, processor, problems)
  mean, std = read_statistics(processor)
  return ImageOptions(
    size=side,
    mean=mean,
    std=std,
    background=mean_colour(mean),
    resample=int(processor.resample),
    form="stretched",
    grid=round(tokens**0.5),
    rotate=True,
  )


def describe_stretched_options(options: ImageOptions) -> dict[str, Any]:
  """preprocessor_config.json of the processor that does as the options say."""
  return {
    "image_processor_type": "Gemma3ImageProcessor",
    "processor_class": "Gemma3Processor",
    **describe_values(options),
    "size": {"height": options.size, "width": options.size},
    "do_pan_and_scan": False,
  }
