"""What the readers of all kinds of image processors check in the same way."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.source import read_json
from mllm_selector_jax.types import InputError

Channels = tuple[float, float, float]
MOST_TILES = 64  # of an image, so that a mistyped number cannot fill the memory
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"


def name_file(folder: Path) -> Path:
  """The file that transformers reads a directory's image processor from."""
  path = folder / PROCESSOR
  if path.is_file() and "image_processor" in read_json(path):
    return path
  return folder / PREPROCESSOR


def read_processor_fields(folder: Path) -> dict[str, Any]:
  """What processor_config.json holds; {} if there is none."""
  path = folder / PROCESSOR
  return read_json(path) if path.is_file() else {}


def find_length_problems(
  folder: Path, tokens: int, source: str, field: str = "image_seq_length"
) -> list[str]:
  """What is wrong with the tokens of a tile that processor_config.json states, if any.

  Args:
    folder: the directory.
    tokens: of a tile, by config.json.
    source: the fields of config.json that say so.
    field: of processor_config.json, which may lack it.
  """
  stated = read_processor_fields(folder).get(field, tokens)
  if stated == tokens:
    return []
  return [
    f"{field} of {PROCESSOR} is {stated}, but a tile has {tokens} tokens by {source} of"
    " config.json"
  ]


def read_sides(processor: Any, name: str) -> dict[str, int]:
  """A size of an image processor, by the names of its sides; {} if it has none."""
  value = getattr(processor, name, None)
  if value is None:
    return {}
  return {key: side for key, side in dict(value).items() if side is not None}


def read_square(sides: dict[str, int], *kinds: set[str]) -> int | None:
  """The side of a square that is given by one of the sets of names, or None."""
  values = set(sides.values())
  return values.pop() if set(sides) in kinds and len(values) == 1 else None


def read_statistics(processor: Any) -> tuple[Channels, Channels]:
  """The mean and the deviation of the channels, of which there are three."""
  mean, std = (
    (float(red), float(green), float(blue))
    for red, green, blue in (processor.image_mean, processor.image_std)
  )
  return mean, std


def mean_colour(mean: Channels) -> tuple[int, int, int]:
  """The colour with which LLaVA pads: the mean, truncated."""
  red, green, blue = (int(value * 255) for value in mean)
  return red, green, blue


def find_value_problems(processor: Any, normalises: bool = True) -> list[str]:
  """What cannot be done of how an image processor makes numbers of pixels.

  Args:
    processor: the image processor.
    normalises: whether one of its kind standardises them; others must not.
  """
  problems = []
  wanted = {"do_resize": True, "do_rescale": True, "do_normalize": normalises}
  for name, on in wanted.items():
    if bool(getattr(processor, name, False)) != on:
      problems.append(f"{name} is {'off' if on else 'on'}")
  factor = getattr(processor, "rescale_factor", None)
  if factor is None or abs(factor * 255 - 1) > 1e-6:
    problems.append(f"rescale_factor is {factor}, not 1/255")
  mean, std = tuple(processor.image_mean or ()), tuple(processor.image_std or ())
  if not normalises:
    return problems
  if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
    problems.append(f"image_mean {mean} and image_std {std} are not of three channels")
  return problems


def read_tile(vision_config: Any) -> tuple[int, int]:
  """The side of the square that the vision tower reads, in pixels and in patches."""
  sides = []
  for key in ("image_size", "patch_size"):
    value = getattr(vision_config, key, None)
    values = set(value) if isinstance(value, list | tuple) else {value}
    side = values.pop()
    if values or not isinstance(side, int):
      raise InputError(f"vision_config.{key} must be a single number")
    sides.append(side)
  return sides[0], sides[0] // sides[1]


def refuse_problems(folder: Path, processor: Any, problems: list[str]) -> None:
  """Raises an InputError with the problems of a directory's files, if any."""
  if problems:
    raise InputError(
      f"{name_file(folder)}: the image processor ({type(processor).__name__}) cannot"
      f" be followed: {'; '.join(problems)}."
    )


def describe_values(options: Any) -> dict[str, Any]:
  """The fields of preprocessor_config.json that all kinds have in common."""
  return {
    "do_convert_rgb": True,
    "do_resize": True,
    "resample": options.resample,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(options.mean),
    "image_std": list(options.std),
  }
