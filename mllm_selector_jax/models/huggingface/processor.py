"""The tokenizer and what the image processor does to pixels."""

import os
from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.source import find_model, read_json
from mllm_selector_jax.types import ImageOptions, InputError

LOCAL = {"local_files_only": True, "trust_remote_code": False}


def load_image_processor(folder: Path) -> Any:
  """The image processor of a directory, in its Pillow form.

  Raises:
    InputError: missing or malformed.
  """
  if not any(
    (folder / name).is_file()
    for name in ("preprocessor_config.json", "processor_config.json")
  ):
    raise InputError(
      f"{folder} has no preprocessor_config.json, which says how images are prepared."
    )
  from transformers import AutoImageProcessor

  try:
    return AutoImageProcessor.from_pretrained(str(folder), backend="pil", **LOCAL)
  except Exception as error:
    # A missing key, a wrong type, an unknown class: all mean a wrong file.
    raise InputError(
      f"{folder}: the image processor cannot be read: {error}"
    ) from error


def read_image_options(folder: Path, image_size: int | None = None) -> ImageOptions:
  """What the directory's image processor does, as options of ours.

  Args:
    folder: a model directory.
    image_size: side that the vision tower reads, in pixels, to be checked.

  Raises:
    InputError: with everything the processor does that we cannot do.
  """
  processor = load_image_processor(folder)
  size, crop = _sides(processor, "size"), _sides(processor, "crop_size")
  pad, cropped = bool(processor.do_pad), bool(processor.do_center_crop)
  side = next(iter(size.values()), None)
  problems = []
  for name in ("do_resize", "do_rescale", "do_normalize"):
    if not getattr(processor, name, False):
      problems.append(f"{name} is off")
  factor = getattr(processor, "rescale_factor", None)
  if factor is None or abs(factor * 255 - 1) > 1e-6:
    problems.append(f"rescale_factor is {factor}, not 1/255")
  if set(size) not in ({"shortest_edge"}, {"height", "width"}) or (
    len(set(size.values())) != 1
  ):
    problems.append(f"size is {size}, neither a shortest edge nor a square")
  elif not pad and set(size) != {"shortest_edge"}:
    problems.append(f"size is {size}, which distorts images that are not padded")
  if cropped and set(crop.values()) != {side}:
    problems.append(f"crop_size is {crop}, size {size}; they must agree")
  if not pad and not cropped:
    problems.append("neither do_pad nor do_center_crop is on: images stay oblong")
  if image_size is not None and side != image_size:
    problems.append(f"size is {size}, but the vision tower reads {image_size}")
  mean, std = tuple(processor.image_mean or ()), tuple(processor.image_std or ())
  if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
    problems.append(f"image_mean {mean} and image_std {std} are not of three channels")
  if problems:
    raise InputError(
      f"{folder}: the image processor ({type(processor).__name__}) does what this"
      " package cannot: " + "; ".join(problems) + ". LlavaImageProcessor with"
      " do_pad, or CLIPImageProcessor with a centre crop, can be used."
    )
  return ImageOptions(
    size=side,
    mean=mean,
    std=std,
    pad=pad,
    # LLaVA's padding colour: the mean, truncated.
    background=tuple(int(value * 255) for value in mean),
    resample=int(processor.resample),
  )


def _sides(processor: Any, name: str) -> dict[str, int]:
  value = getattr(processor, name, None)
  if value is None:
    return {}
  return {key: side for key, side in dict(value).items() if side is not None}


def read_processor(path: str | os.PathLike) -> tuple[Any, ImageOptions]:
  """The tokenizer, and how images are prepared, of a model directory.

  Raises:
    InputError: missing or malformed files, a tokenizer that does not know the
      config's image token, an image processor that we cannot follow.
  """
  folder = find_model(path)
  config = read_json(folder / "config.json")
  from transformers import AutoTokenizer

  try:
    tokenizer = AutoTokenizer.from_pretrained(str(folder), **LOCAL)
  except Exception as error:
    # Missing and malformed files raise many kinds.
    raise InputError(f"{folder}: the tokenizer cannot be read: {error}") from error
  name = "<image>"
  if (folder / "processor_config.json").is_file():
    name = read_json(folder / "processor_config.json").get("image_token") or name
  name = getattr(name, "content", name)
  wanted = config.get("image_token_index", config.get("image_token_id", 32000))
  found = tokenizer.get_vocab().get(name)
  if found != wanted:
    raise InputError(
      f"{folder}: config.json says that {name} has the id {wanted}, but the tokenizer"
      + (" has no such token" if found is None else f" gives it the id {found}")
      + f". Add {name} to the tokenizer under that id (tokenizer.add_tokens)."
    )
  vision = config.get("vision_config")
  side = vision.get("image_size", 336) if isinstance(vision, dict) else None
  return tokenizer, read_image_options(folder, side)
