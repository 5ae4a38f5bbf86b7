"""Image processors that make one square of an image: LLaVA's, CLIP's, SigLIP's."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.model_families import count_image_tokens
from mllm_selector_jax.models.huggingface.processor_checks import (
  describe_values,
  find_value_problems,
  mean_colour,
  read_sides,
  read_square,
  read_statistics,
  read_tile,
)
from mllm_selector_jax.types import ImageOptions, InputError


def read_square_options(
  folder: Path, processor: Any, config: Any, pad: bool
) -> ImageOptions:
  """What the processor does, as options of ours; see `read_image_options`."""
  image_size, grid = read_tile(config.vision_config)
  size, crop = read_sides(processor, "size"), read_sides(processor, "crop_size")
  padded = bool(getattr(processor, "do_pad", False))
  cropped = bool(getattr(processor, "do_center_crop", False))
  side = read_square(size, {"shortest_edge"}, {"height", "width"})
  problems = find_value_problems(processor)
  if side is None:
    problems.append(f"size is {size}, neither a shortest edge nor a square")
  elif not (pad or padded) and set(size) != {"shortest_edge"}:
    problems.append(f"size is {size}, which distorts images that are not padded")
  if cropped and set(crop.values()) != set(size.values()):
    problems.append(f"crop_size is {crop}, size {size}; they must agree")
  if not (pad or padded or cropped):
    problems.append("neither do_pad nor do_center_crop is on: images stay oblong")
  if side is not None and side != image_size:
    problems.append(f"size is {size}, but the vision tower reads {image_size}")
  if problems:
    raise InputError(
      f"{folder}: the image processor ({type(processor).__name__}) does what this"
      " package cannot: " + "; ".join(problems) + ". LlavaImageProcessor with"
      " do_pad, or CLIPImageProcessor with a centre crop, can be used; with"
      " model.pad_images, SigLIP's too."
    )
  mean, std = read_statistics(processor)
  return ImageOptions(
    size=image_size,
    mean=mean,
    std=std,
    pad=pad or padded,
    background=mean_colour(mean),
    resample=int(processor.resample),
    grid=grid,
    extra_features=count_image_tokens(config) - grid**2,
  )


def describe_square_options(options: ImageOptions) -> dict[str, Any]:
  """preprocessor_config.json of the processor that does as the options say."""
  return {
    "image_processor_type": "LlavaImageProcessor",
    "processor_class": "LlavaProcessor",
    **describe_values(options),
    "do_pad": options.pad,
    "size": {"shortest_edge": options.size},
    "do_center_crop": True,
    "crop_size": {"height": options.size, "width": options.size},
  }
