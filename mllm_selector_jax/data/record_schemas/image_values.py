"""What a record's image fields hold: paths, bytes, data URLs, base64, or nothing."""

import base64
import binascii
import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mllm_selector_jax.types import Picture, RowError

# The first of these that holds an image gives the record's images.
FIELDS = (
  *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos"),
  *("jpg", "jpeg", "png", "webp", "image_path", "image_paths", "image_file"),
)
_NUMBERED = re.compile(r"(?:image|img)_?(\d+)")  # image_0, image_1, ...
_DATA_URL = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.-]+)*,", re.IGNORECASE)
# The first characters of the allowed formats' magic bytes, in base64.
_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkqA", "TU0AK", "Qk")
_LEAST_BASE64 = 64  # characters; a shorter text is a path
_BASE64_TEXT = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_NO_PATHS = ("", "nan", "NaN", "None", "null")  # the latter as pandas writes nothing
# Where a struct holds its image, in order.
_INSIDE = ("bytes", "path", "url", "image", "image_url", "value", "file_name")


class Images(NamedTuple):
  """The images of a field.

  Attributes:
    pictures: in order.
    blanks: places that are there and hold none, such as "" and {"path": null}.
  """

  pictures: tuple[Picture, ...]
  blanks: int = 0


_NONE = Images(())


@functools.lru_cache(maxsize=4096)
def is_image_field(name: str) -> bool:
  return name in FIELDS or _NUMBERED.fullmatch(name) is not None


def read_fields(value: Mapping[str, Any]) -> tuple[Images, tuple[str, ...]]:
  """The images that a record's fields name, and the fields that were read.

  Raises:
    RowError: a field holds what is no image.
  """
  there = [name for name in value if is_image_field(name)]
  if not there:
    return _NONE, ()
  if len(there) == 1:
    return read_images(value[there[0]]), (there[0],)
  blanks, read = 0, []
  for name in FIELDS:
    if name in value:
      found = read_images(value[name])
      read.append(name)
      if found.pictures:
        return found, tuple(read)
      blanks += found.blanks
  numbered = sorted(
    (int(match[1]), name) for name in there if (match := _NUMBERED.fullmatch(name))
  )
  pictures: list[Picture] = []
  for _, name in numbered:
    found = read_images(value[name])
    read.append(name)
    pictures += found.pictures
    blanks += found.blanks
  return Images(tuple(pictures), blanks), tuple(read)


def read_images(value: Any) -> Images:
  """A field's images: one, a list of them, or such a list as JSON text.

  Raises:
    RowError: it holds what is no image.
  """
  if isinstance(value, str) and value[:1] == "[" and value.rstrip()[-1:] == "]":
    try:
      value = json.loads(value)
    except ValueError:
      pass  # a path may be written in brackets
  listed = value if isinstance(value, list) else [value]
  pictures, blanks = [], 0
  for each in listed:
    found = read_image(each)
    if found is not None:
      pictures.append(found)
    elif each is not None and not isinstance(each, float):
      blanks += 1
  return Images(tuple(pictures), blanks)


def read_image(value: Any) -> Picture | None:
  """One image; None where there is none.

  Raises:
    RowError: the value is no image.
  """
  if isinstance(value, Picture):
    return value
  if isinstance(value, str):
    return None if value in _NO_PATHS else _read_text(value)
  if isinstance(value, bytes):
    return Picture(None, value)
  if value is None or (isinstance(value, float) and math.isnan(value)):
    return None
  if isinstance(value, Mapping) and not value.keys().isdisjoint(_INSIDE):
    return _read_struct(value)
  raise RowError("malformed", f"image is {type(value).__name__}, not a path")


def take_pictures(value: dict[str, Any]) -> tuple[Picture, ...] | None:
  """The images whose bytes lie in a record, each replaced by its name there.

  Returns:
    None where the record holds no image's bytes in a field of its own.
  """
  try:
    found, read = read_fields(value)
  except RowError:
    return None  # the reader of the record says what is wrong
  if all(picture.data is None for picture in found.pictures):
    return None
  for name in read:
    if isinstance(value[name], list):
      images = read_images(value[name]).pictures
      value[name] = [picture.name for picture in images]
    elif (image := read_image(value[name])) is not None:
      value[name] = image.name
  return found.pictures


def _read_struct(value: Mapping[str, Any]) -> Picture | None:
  data, name = value.get("bytes"), value.get("path")
  if isinstance(data, str):
    data = _decode(data) if data else None
  if not isinstance(data, bytes | None) or not isinstance(name, str | None):
    raise RowError("malformed", "an image's bytes or path is neither of these")
  if data is not None:
    return Picture(name or None, data)
  for field in _INSIDE[1:]:
    if (found := value.get(field)) is not None:
      return read_image(found)
  return None


def _read_text(text: str) -> Picture:
  if match := _DATA_URL.match(text):
    if ";base64" not in match[0].lower():
      raise RowError("unreadable image", "the data URL is not in base64")
    return Picture(None, _decode(text[match.end() :]))
  if len(text) >= _LEAST_BASE64 and text.startswith(_BASE64):
    if _BASE64_TEXT.fullmatch(text):
      return Picture(None, _decode(text))
  return Picture(text)


def _decode(text: str) -> bytes:
  text = "".join(text.split())
  try:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
  except binascii.Error as error:
    raise RowError("unreadable image", f"broken base64 ({error})") from error


def names_of(pictures: tuple[Picture, ...]) -> Iterator[str]:
  """The names of the images that lie outside the record."""
  for picture in pictures:
    if picture.data is None and picture.name is not None:
      yield picture.name
