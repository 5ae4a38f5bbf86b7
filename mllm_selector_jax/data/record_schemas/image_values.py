"""Reads a record's image fields: paths, bytes, data URLs, base64, or nothing."""

import base64
import binascii
import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mllm_selector_jax.types import Picture, RowError

# The record's images are taken from the first of these fields that holds any.
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
_NO_PATHS = ("", "nan", "NaN", "None", "null")  # texts that writers use for no image
# The fields in which a struct may hold its image, in the order in which they are tried.
_INSIDE = (
  *("bytes", "path", "url", "image", "image_url", "value", "file_name", "data"),
)


class Images(NamedTuple):
  """The images of a field.

  Attributes:
    pictures: the images, in order.
    blanks: the number of empty entries, such as "" and {"path": null}.
  """

  pictures: tuple[Picture, ...]
  blanks: int = 0


_NONE = Images(())


@functools.lru_cache(maxsize=4096)
def is_image_field(name: str) -> bool:
  """Returns whether a field of this name is read as images."""
  return name in FIELDS or _NUMBERED.fullmatch(name) is not None


def read_fields(value: Mapping[str, Any]) -> tuple[Images, tuple[str, ...]]:
  """Reads a record's images.

  Returns:
    The images, and the names of the fields that were read.

  Raises:
    RowError: an image field holds something that is not an image.
  """
  present = [name for name in value if is_image_field(name)]
  if not present:
    return _NONE, ()
  if len(present) == 1:
    return read_images(value[present[0]]), (present[0],)
  blanks, read = 0, []
  for name in FIELDS:
    if name in value:
      images = read_images(value[name])
      read.append(name)
      if images.pictures:
        return images, tuple(read)
      blanks += images.blanks
  numbered = sorted(
    (int(match[1]), name) for name in present if (match := _NUMBERED.fullmatch(name))
  )
  pictures: list[Picture] = []
  for _, name in numbered:
    images = read_images(value[name])
    read.append(name)
    pictures += images.pictures
    blanks += images.blanks
  return Images(tuple(pictures), blanks), tuple(read)


def read_images(value: Any) -> Images:
  """Reads the value of a field: an image, a list of images, or such a list as JSON.

  Raises:
    RowError: the value is not an image.
  """
  if isinstance(value, str) and value[:1] == "[" and value.rstrip()[-1:] == "]":
    try:
      value = json.loads(value)
    except (ValueError, RecursionError):
      pass  # it may be a path that is written in brackets
  items = value if isinstance(value, list) else [value]
  pictures, blanks = [], 0
  for item in items:
    picture = read_image(item)
    if picture is not None:
      pictures.append(picture)
    elif item is not None and not isinstance(item, float):
      blanks += 1
  return Images(tuple(pictures), blanks)


def read_image(value: Any) -> Picture | None:
  """Reads one image; returns None for a value that stands for no image.

  Raises:
    RowError: the value is not an image.
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
  """Takes the images out of a record that holds their bytes.

  In the record, each image is replaced by its name.

  Returns:
    The images; None if no field of the record holds the bytes of an image.
  """
  try:
    images, read = read_fields(value)
  except RowError:
    return None  # the reader of the record will report the fault
  if all(picture.data is None for picture in images.pictures):
    return None
  for name in read:
    if isinstance(value[name], list):
      pictures = read_images(value[name]).pictures
      value[name] = [picture.name for picture in pictures]
    elif (picture := read_image(value[name])) is not None:
      value[name] = picture.name
  return images.pictures


def _read_struct(value: Mapping[str, Any]) -> Picture | None:
  data, name = value.get("bytes"), value.get("path")
  if isinstance(data, str):
    data = _decode(data) if data else None
  if not isinstance(data, bytes | None) or not isinstance(name, str | None):
    raise RowError("malformed", "an image's bytes or path is neither of these")
  if data is not None:
    return Picture(name or None, data)
  for field in _INSIDE[1:]:
    if (image := value.get(field)) is not None:
      return read_image(image)
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
  """Yields the names of those images whose bytes are not in the record."""
  for picture in pictures:
    if picture.data is None and picture.name is not None:
      yield picture.name
