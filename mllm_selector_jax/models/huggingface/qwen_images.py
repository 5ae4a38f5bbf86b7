"""The image processor that Qwen2-VL, Qwen2.5-VL and Qwen3-VL share, and GLM-4.1V's."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.processor_checks import (
  describe_values,
  find_value_problems,
  mean_colour,
  read_sides,
  read_statistics,
  refuse_problems,
)
from mllm_selector_jax.types import ImageOptions

MERGE, FRAMES = 2, 2  # patches along a feature's side, frames of a patch
# Of an image after it is enlarged, so that a mistyped number cannot fill the memory.
MOST_LEAST_PIXELS = 1 << 24
# What the processor's fields are called in vision_config of config.json.
_SHARED = {
  "patch_size": "patch_size",
  "merge_size": "spatial_merge_size",
  "temporal_patch_size": "temporal_patch_size",
}


def read_qwen_options(
  folder: Path, processor: Any, config: Any, pad: bool
) -> ImageOptions:
  """What the processor does, as options of ours; see `read_image_options`.

  Its bounds are numbers of pixels, whatever the names `shortest_edge` and
  `longest_edge` say. Where the file has `min_pixels` or `max_pixels` beside them,
  transformers takes these.
  """
  vision = config.vision_config
  problems = find_value_problems(processor)
  for name, other in _SHARED.items():
    found, wanted = getattr(processor, name, None), getattr(vision, other, None)
    if found != wanted:
      problems.append(
        f"{name} is {found}, but vision_config.{other} of config.json is {wanted}"
      )
  for name, only in ("spatial_merge_size", MERGE), ("temporal_patch_size", FRAMES):
    if getattr(vision, name, None) != only:
      problems.append(
        f"vision_config.{name} of config.json is {getattr(vision, name, None)}, only"
        f" {only} can be followed"
      )
  size = read_sides(processor, "size")
  least, most = (size.get(name) for name in ("shortest_edge", "longest_edge"))
  if not isinstance(least, int) or not isinstance(most, int):
    problems.append(
      f"size is {size}; it must have shortest_edge and longest_edge (or the file"
      " min_pixels and max_pixels), the least and the most pixels of an image"
    )
  elif not 1 <= least <= min(most, MOST_LEAST_PIXELS):
    problems.append(
      f"shortest_edge (min_pixels) is {least:,}, longest_edge (max_pixels) {most:,};"
      " allowed is 1 <= shortest_edge <= longest_edge, and shortest_edge at most"
      f" {MOST_LEAST_PIXELS:,}"
    )
  window, side = getattr(vision, "window_size", 0), vision.patch_size * MERGE
  if config.model_type == "qwen2_5_vl" and window < side:
    problems.append(
      f"vision_config.window_size of config.json is {window}, smaller than the {side}"
      " pixels of a token"
    )
  refuse_problems(folder, processor, problems)
  assert isinstance(least, int) and isinstance(most, int), "others were refused"
  mean, std = read_statistics(processor)
  return ImageOptions(
    size=side,
    mean=mean,
    std=std,
    background=mean_colour(mean),
    resample=int(processor.resample),
    form="glm4v" if config.model_type in ("glm4v", "glm46v") else "native",
    grid=1,
    rotate=True,
    min_pixels=least,
    max_pixels=most,
    window=window // side if config.model_type == "qwen2_5_vl" else 0,
  )


def describe_glm_options(options: ImageOptions) -> dict[str, Any]:
  """preprocessor_config.json of GLM-4.1V's processor, which has no older names."""
  described = describe_qwen_options(options)
  del described["min_pixels"], described["max_pixels"]
  return {**described, "image_processor_type": "Glm4vImageProcessor"}


def describe_qwen_options(options: ImageOptions) -> dict[str, Any]:
  """preprocessor_config.json of the processor that does as the options say.

  The bounds have both the names that transformers 4 reads and those of version 5.
  """
  least, most = options.min_pixels, options.max_pixels
  return {
    "image_processor_type": "Qwen2VLImageProcessor",
    **describe_values(options),
    "size": {"shortest_edge": least, "longest_edge": most},
    "min_pixels": least,
    "max_pixels": most,
    "patch_size": options.size // MERGE,
    "merge_size": MERGE,
    "temporal_patch_size": FRAMES,
  }
