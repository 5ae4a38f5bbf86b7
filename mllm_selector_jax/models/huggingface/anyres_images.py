"""The image processors of LLaVA-NeXT and LLaVA-OneVision."""

import re
from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.processor_checks import (
  MOST_TILES,
  PROCESSOR,
  describe_values,
  find_value_problems,
  mean_colour,
  read_processor_fields,
  read_sides,
  read_square,
  read_statistics,
  read_tile,
  refuse_problems,
)
from mllm_selector_jax.models.huggingface.tower_families import read_tower
from mllm_selector_jax.types import ImageOptions

_SHOWN = 4  # pinpoints that a message lists


def read_next_options(
  folder: Path, processor: Any, config: Any, pad: bool
) -> ImageOptions:
  """What LLaVA-NeXT's processor does; see `read_image_options`."""
  problems = _find_problems(processor, config)
  patch, stated = config.vision_config.patch_size, read_processor_fields(folder)
  if stated.get("patch_size", patch) != patch:
    problems.append(
      f"patch_size of {PROCESSOR} is {stated['patch_size']}, but"
      f" vision_config.patch_size of config.json is {patch}"
    )
  problems += _compare(stated, config, "vision_feature_select_strategy")
  refuse_problems(folder, processor, problems)
  return _make_options(processor, config)


def read_onevision_options(
  folder: Path, processor: Any, config: Any, pad: bool
) -> ImageOptions:
  """What LLaVA-OneVision's processor does; see `read_image_options`."""
  problems = _find_problems(processor, config)
  stated = read_processor_fields(folder)
  limit = re.fullmatch(r"anyres_max_([1-9]\d*)", str(config.vision_aspect_ratio))
  if limit is None:
    problems.append(
      f"vision_aspect_ratio of config.json is {config.vision_aspect_ratio!r}, only"
      " 'anyres_max_N' with a number N can be followed"
    )
  problems += _compare(stated, config, "vision_aspect_ratio")
  problems += _compare(stated, config, "vision_feature_select_strategy")
  features = read_tile(config.vision_config)[1] ** 2
  # transformers takes one off for the class token that "default" leaves out.
  features += config.vision_feature_select_strategy == "default"
  if stated.get("num_image_tokens", features) != features:
    problems.append(
      f"num_image_tokens of {PROCESSOR} is {stated['num_image_tokens']}, but a tile has"
      f" {features} by vision_config of config.json"
    )
  refuse_problems(folder, processor, problems)
  assert limit is not None, "another vision_aspect_ratio was refused"
  return _make_options(
    processor, config, max_features=int(limit[1]), tile_several=False
  )


def describe_anyres_options(options: ImageOptions) -> dict[str, Any]:
  """preprocessor_config.json of the processor that does as the options say."""
  square = {"height": options.size, "width": options.size}
  fields = {
    **describe_values(options),
    "do_pad": True,  # of the number of tiles, in transformers' batches
    "image_grid_pinpoints": [list(pair) for pair in options.pinpoints],
  }
  if options.max_features is None:
    return {
      "image_processor_type": "LlavaNextImageProcessor",
      "processor_class": "LlavaNextProcessor",
      **fields,
      "size": {"shortest_edge": options.size},
      "do_center_crop": True,
      "crop_size": square,
    }
  return {
    "image_processor_type": "LlavaOnevisionImageProcessor",
    "processor_class": "LlavaOnevisionProcessor",
    **fields,
    "size": square,
  }


def _find_problems(processor: Any, config: Any) -> list[str]:
  """What neither of the two families may do otherwise."""
  image_size, _ = read_tile(config.vision_config)
  size, crop = read_sides(processor, "size"), read_sides(processor, "crop_size")
  problems = find_value_problems(processor)
  if read_square(size, {"shortest_edge"}, {"height", "width"}) != image_size:
    problems.append(
      f"size is {size}, but vision_config.image_size of config.json is {image_size}"
    )
  if crop and set(crop.values()) != {image_size}:
    problems.append(
      f"crop_size is {crop}, but vision_config.image_size of config.json is"
      f" {image_size}"
    )
  tower, strategy = (
    read_tower(config.vision_config),
    config.vision_feature_select_strategy,
  )
  if tower.class_token != (strategy == "default"):
    problems.append(
      f"vision_feature_select_strategy of config.json is {strategy!r}, which leaves no"
      f" square of features of a tower {'with' if tower.class_token else 'without'} a"
      " class token"
    )
  return problems + _find_pinpoint_problems(processor, config, image_size)


def _find_pinpoint_problems(processor: Any, config: Any, side: int) -> list[str]:
  """What is wrong with the sizes to which images are fitted."""
  pinpoints, wanted = _read_pinpoints(processor), _read_pinpoints(config)
  if not pinpoints or any(len(pair) != 2 for pair in pinpoints):
    return ["image_grid_pinpoints is not a list of pairs [height, width]"]
  problems = []
  if odd := [pair for pair in pinpoints if any(n < side or n % side for n in pair)]:
    problems.append(
      f"image_grid_pinpoints has {_list(odd)}, not whole numbers of tiles of {side}"
    )
  elif large := [
    pair for pair in pinpoints if pair[0] * pair[1] // side**2 > MOST_TILES
  ]:
    problems.append(
      f"image_grid_pinpoints has {_list(large)}, more than {MOST_TILES} tiles of {side}"
    )
  if pinpoints != wanted:
    only, missing = (
      [pair for pair in first if pair not in second]
      for first, second in ((pinpoints, wanted), (wanted, pinpoints))
    )
    problems.append(
      "image_grid_pinpoints differs from image_grid_pinpoints of config.json: "
      + (
        f"only here {_list(only)}, only there {_list(missing)}"
        if only or missing
        else "the order is another, which decides between equals"
      )
    )
  return problems


def _read_pinpoints(source: Any) -> list[tuple[int, ...]]:
  return [tuple(pair) for pair in source.image_grid_pinpoints or ()]


def _list(pinpoints: list[tuple[int, ...]]) -> str:
  shown = ", ".join(str(list(pair)) for pair in pinpoints[:_SHOWN])
  more = len(pinpoints) - _SHOWN
  return (shown or "none") + (f" and {more} more" if more > 0 else "")


def _compare(stated: dict[str, Any], config: Any, key: str) -> list[str]:
  """Says if processor_config.json and config.json contradict each other."""
  wanted = getattr(config, key)
  if stated.get(key, wanted) == wanted:
    return []
  return [f"{key} of {PROCESSOR} is {stated[key]!r}, of config.json {wanted!r}"]


def _make_options(processor: Any, config: Any, **fields: Any) -> ImageOptions:
  size, grid = read_tile(config.vision_config)
  mean, std = read_statistics(processor)
  return ImageOptions(
    size=size,
    mean=mean,
    std=std,
    background=mean_colour(mean),
    resample=int(processor.resample),
    form="anyres",
    grid=grid,
    pinpoints=tuple((pair[0], pair[1]) for pair in _read_pinpoints(processor)),
    rotate=True,
    **fields,
  )
