"""The tokenizer and what the image processor does to pixels."""

import os
from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.custom_code import name_custom_code
from mllm_selector_jax.models.huggingface.families import read_tower
from mllm_selector_jax.models.huggingface.model_families import find_family
from mllm_selector_jax.models.huggingface.model_parts import PAD, Parts, find_parts
from mllm_selector_jax.models.huggingface.source import read_json
from mllm_selector_jax.models.huggingface.tokenizer_files import LOCAL, load_tokenizer
from mllm_selector_jax.types import ImageOptions, InputError


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
    name_custom_code(folder, "preprocessor_config.json", "the image processor", error)
    # A missing key, a wrong type, an unknown class: all mean a wrong file.
    raise InputError(
      f"{folder}: the image processor cannot be read: {error}"
    ) from error


def read_image_options(
  folder: Path, image_size: int | None = None, pad: bool = False
) -> ImageOptions:
  """What the directory's image processor does, as options of ours.

  Args:
    folder: a directory with an image processor.
    image_size: side that the vision tower reads, in pixels, to be checked.
    pad: pad to a square, as LLaVA-1.5 was trained, though the processor (CLIP's,
      as llava-hf publishes it) crops, or (SigLIP's) distorts.

  Raises:
    InputError: with everything the processor does that we cannot do.
  """
  processor = load_image_processor(folder)
  size, crop = _sides(processor, "size"), _sides(processor, "crop_size")
  padded = bool(getattr(processor, "do_pad", False))
  cropped = bool(getattr(processor, "do_center_crop", False))
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
  elif not (pad or padded) and set(size) != {"shortest_edge"}:
    problems.append(f"size is {size}, which distorts images that are not padded")
  if cropped and set(crop.values()) != {side}:
    problems.append(f"crop_size is {crop}, size {size}; they must agree")
  if not (pad or padded or cropped):
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
      " do_pad, or CLIPImageProcessor with a centre crop, can be used; with"
      " model.pad_images, SigLIP's too."
    )
  assert side is not None, "a size without a side was refused"
  # LLaVA's padding colour: the mean, truncated.
  red, green, blue = (int(value * 255) for value in mean)
  return ImageOptions(
    size=side,
    mean=mean,
    std=std,
    pad=pad or padded,
    background=(red, green, blue),
    resample=int(processor.resample),
  )


def describe_image_options(options: ImageOptions) -> dict[str, Any]:
  """preprocessor_config.json of the processor that does as the options say."""
  return {
    "image_processor_type": "LlavaImageProcessor",
    "processor_class": "LlavaProcessor",
    "do_convert_rgb": True,
    "do_pad": options.pad,
    "do_resize": True,
    "size": {"shortest_edge": options.size},
    "resample": options.resample,
    "do_center_crop": True,
    "crop_size": {"height": options.size, "width": options.size},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(options.mean),
    "image_std": list(options.std),
  }


def _sides(processor: Any, name: str) -> dict[str, int]:
  value = getattr(processor, name, None)
  if value is None:
    return {}
  return {key: side for key, side in dict(value).items() if side is not None}


def read_processor(
  path: str | os.PathLike, pad: bool = False
) -> tuple[Any, ImageOptions]:
  """The tokenizer, and how images are prepared, of a model directory.

  Args:
    path: the directory, or a hub name.
    pad: pad images whatever the image processor says; see `read_image_options`.

  Raises:
    InputError: missing or malformed files, a tokenizer that does not know the
      config's image token or is larger than the vocabulary, an image processor
      that we cannot follow.
  """
  parts = find_parts(path)
  return read_tokenizer(parts), parts_image_options(parts, pad)


def parts_image_options(parts: Parts, pad: bool = False) -> ImageOptions:
  """How images are prepared for a model made of these parts."""
  side = read_tower(parts.config.vision_config).image_size
  return read_image_options(parts.vision, side, pad or parts.padded)


def read_tokenizer(parts: Parts) -> Any:
  """The tokenizer of a model made of these parts, with what it was given.

  Raises:
    InputError: missing, malformed, or not the config's.
  """
  folder, config = parts.decoder, parts.config
  tokenizer = load_tokenizer(folder)
  tokenizer.add_tokens(list(parts.added), special_tokens=True)
  if PAD in parts.added:
    tokenizer.pad_token = PAD
  name = find_family(config).image_token
  path = folder / "processor_config.json"
  if path.is_file():
    name = read_json(path).get("image_token") or name
  name = getattr(name, "content", name)
  wanted = config.image_token_id
  found = tokenizer.get_vocab().get(name)
  if found != wanted:
    raise InputError(
      f"{folder}: config.json says that {name} has the id {wanted}, but the tokenizer"
      + (" has no such token" if found is None else f" gives it the id {found}")
      + f". Add {name} to the tokenizer under that id (tokenizer.add_tokens)."
    )
  if len(tokenizer) > config.text_config.vocab_size:
    raise InputError(
      f"{folder}: the tokenizer has {len(tokenizer)} tokens, but config.json has a"
      f" vocab_size of {config.text_config.vocab_size}, which must not be smaller."
      " One of the two files is of another model."
    )
  return tokenizer
