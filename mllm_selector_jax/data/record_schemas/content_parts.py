"""A message's list of parts as one text, with `<image>` where an image stands."""

from typing import Any

from mllm_selector_jax.data.record_schemas.image_values import read_image
from mllm_selector_jax.types import MARK, Picture, RowError

_TEXTS = ("text", "input_text", "output_text")
_IMAGES = ("image", "image_url", "input_image", "img")
_TEXT_FIELDS = ("text", "value", "content")
_IMAGE_FIELDS = ("image", "image_url", "url", "value", "img")
_MEDIA = ("video", "video_url", "input_video", "audio", "audio_url", "input_audio")


def join_parts(parts: list[Any], place: int, named: list[Picture]) -> str:
  """The text of a message's parts.

  An image's mark stands on a line of its own, unless the texts around it bring their
  own blanks.

  Args:
    parts: texts, or objects of the OpenAI, TRL, ms-swift or Qwen form.
    place: of the turn, for messages.
    named: takes the images that the parts name.

  Raises:
    RowError: a part is neither text nor an image.
  """
  text = ""
  for part in parts:
    new = _read_part(part, place, named)
    apart = text and new and not text[-1].isspace() and not new[0].isspace()
    text += f"\n{new}" if apart else new
  return text


def _read_part(part: Any, place: int, named: list[Picture]) -> str:
  if isinstance(part, str):
    return part
  if not isinstance(part, dict):
    raise RowError("malformed", f"turn {place} has a part that is {_kind(part)}")
  kind = part.get("type")
  if kind is None:
    kind = next((k for k in (*_IMAGES, *_MEDIA) if part.get(k) is not None), "text")
  if kind in _IMAGES:
    found = part if {"bytes", "path"} & part.keys() else None
    if found is None:
      found = next((part[f] for f in _IMAGE_FIELDS if part.get(f) is not None), None)
    if (picture := read_image(found)) is not None:
      named.append(picture)
    return MARK
  text = next((part[f] for f in _TEXT_FIELDS if part.get(f) is not None), None)
  if kind in _TEXTS and isinstance(text, str):
    return text
  if kind in _MEDIA:
    raise RowError("other media", f"turn {place} has a part that is {kind}")
  raise RowError("malformed", f"turn {place} has a part that is {repr(kind)[:40]}")


def _kind(value: Any) -> str:
  return type(value).__name__
