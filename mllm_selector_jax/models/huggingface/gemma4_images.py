"""The image processor of Gemma 4, which fits images to a number of tokens."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.processor_checks import (
  Channels,
  find_value_problems,
  mean_colour,
  refuse_problems,
)
from mllm_selector_jax.types import ImageOptions

# Of pixels in [0, 1], which the model and not the processor brings to [-1, 1].
MIDDLE: Channels = (0.5, 0.5, 0.5)
POOL = 3  # patches along a feature's side
# Tokens of an image at most; the image processor knows no other numbers.
COUNTS = (70, 140, 280, 560, 1120)


def read_gemma4_options(
  folder: Path, processor: Any, config: Any, pad: bool
) -> ImageOptions:
  """What the processor does, as options of ours; see `read_image_options`."""
  vision = config.vision_config
  problems = find_value_problems(processor, normalises=False)
  for name in ("patch_size", "pooling_kernel_size"):
    found, wanted = getattr(processor, name, None), getattr(vision, name)
    if found != wanted:
      problems.append(
        f"{name} is {found}, but vision_config.{name} of config.json is {wanted}"
      )
  if vision.pooling_kernel_size != POOL:
    problems.append(
      "vision_config.pooling_kernel_size of config.json is"
      f" {vision.pooling_kernel_size}, only {POOL} can be followed"
    )
  tokens = getattr(processor, "max_soft_tokens", None)
  if tokens not in COUNTS:
    allowed = ", ".join(map(str, COUNTS))
    problems.append(f"max_soft_tokens is {tokens}; it must be one of {allowed}")
  elif tokens * POOL > vision.position_embedding_size:
    problems.append(
      f"max_soft_tokens is {tokens}, so that a side may have {tokens * POOL} patches,"
      f" but the tower has positions for {vision.position_embedding_size}"
      " (vision_config.position_embedding_size)"
    )
  refuse_problems(folder, processor, problems)
  assert tokens is not None, "others were refused"
  side = vision.patch_size * POOL
  return ImageOptions(
    size=side,
    mean=MIDDLE,
    std=MIDDLE,
    background=mean_colour(MIDDLE),
    resample=int(processor.resample),
    form="gemma4",
    grid=1,
    rotate=True,
    max_pixels=tokens * side**2,
    token_counts=COUNTS,
  )


def describe_gemma4_options(options: ImageOptions) -> dict[str, Any]:
  """preprocessor_config.json of the processor that does as the options say."""
  return {
    "image_processor_type": "Gemma4ImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "resample": options.resample,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": False,
    "image_mean": [0.0] * 3,
    "image_std": [1.0] * 3,
    "patch_size": options.size // POOL,
    "pooling_kernel_size": POOL,
    "max_soft_tokens": options.max_pixels // options.size**2,
  }
