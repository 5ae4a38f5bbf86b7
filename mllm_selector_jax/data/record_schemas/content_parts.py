"""Joins the parts of a message to one text, with `<image>` in place of each image."""

from typing import Any

from mllm_selector_jax.data.record_schemas.image_values import read_image
from mllm_selector_jax.types import MARK, Picture, RowError

_TEXTS = ("text", "input_text", "output_text")
_IMAGES = ("image", "image_url", "input_image", "img")
_TEXT_FIELDS = ("text", "value", "content")
_IMAGE_FIELDS = ("image", "image_url", "url", "value", "img", "base64", "source")
_MEDIA = ("video", "video_url", "input_video", "audio", "audio_url", "input_audio")


def name_medium(kind: str) -> str:
  """Returns the reason for setting aside a row with a medium of this kind."""
  return "video" if "video" in kind else "audio"


def join_parts(parts: list[Any], index: int, named: list[Picture]) -> str:
  """Joins the parts of a message to one text.

  Parts without a blank between them are put on separate lines.

  Args:
    parts: texts, or objects as OpenAI, TRL, ms-swift or Qwen define them.
    index: the number of the turn, for messages.
    named: the list to which the images of the parts are appended.

  Raises:
    RowError: a part is neither text nor an image.
  """
  text = ""
  for part in parts:
    part_text = _read_part(part, index, named)
    needs_break = (
      text and part_text and not text[-1].isspace() and not part_text[0].isspace()
    )
    text += f"\n{part_text}" if needs_break else part_text
  return text


def _read_part(part: Any, index: int, named: list[Picture]) -> str:
  if isinstance(part, str):
    return part
  if not isinstance(part, dict):
    name = type(part).__name__
    raise RowError("malformed", f"turn {index} has a part that is {name}")
  kind = part.get("type")
  if kind is None:
    kind = next((k for k in (*_IMAGES, *_MEDIA) if part.get(k) is not None), "text")
  if kind in _IMAGES:
    image = part if {"bytes", "path"} & part.keys() else None
    if image is None:
      image = next((part[f] for f in _IMAGE_FIELDS if part.get(f) is not None), None)
    if (picture := read_image(image)) is not None:
      named.append(picture)
    return MARK
  text = next((part[f] for f in _TEXT_FIELDS if part.get(f) is not None), None)
  if kind in _TEXTS and isinstance(text, str):
    return text
  if kind in _MEDIA:
    raise RowError(name_medium(kind), f"turn {index} has a part that is {kind}")
  raise RowError("malformed", f"turn {index} has a part that is {repr(kind)[:40]}")
