"""Where a row comes from: the name that shares and reports go by."""

import fnmatch
import json
import os
from collections.abc import Callable
from typing import Any

from mllm_selector_jax.data.files.splits import name_file
from mllm_selector_jax.types import InputError, Record

FIELDS = ("source", "data_source")
NO_FOLDER = "image"  # source of an image path without a folder
TEXT_ONLY = "text"  # source of a row without an image
FORMS = "auto, field:NAME, prefix, prefix:N, file, rule:PATTERN=NAME;PATTERN=NAME"

FindSource = Callable[[Record, str | None, str], str]


def make_finder(rule: str) -> FindSource:
  """What finds a row's source from its record, its image's name and its file.

  Args:
    rule: "auto" takes what a prepared pool says, the record's field `source` or
      `data_source`, or its first text's, and where there is none the first folder of
      the image's path; of files with images inside that have no folder, the file's
      name, or that of the folder which says what it holds.
      "field:NAME" takes another field, "prefix:N" the path's first N folders,
      "file" the pool file's name. "rule:PATTERN=NAME;..." gives the name of the
      first pattern (`*`, `?`) that the image's path or the file's fits. Where a
      row has none of what is asked for, "auto" decides.

  Raises:
    InputError: the rule is none of these.
  """
  kind, _, rest = rule.partition(":")
  if rule == "auto":
    return _find_by_itself
  if kind == "field" and rest:
    return lambda record, image, file: (
      _read_field(record.value, rest) or _find_by_itself(record, image, file)
    )
  if kind == "prefix" and (not rest or (rest.isdecimal() and int(rest) > 0)):
    count = int(rest or 1)
    return lambda record, image, file: _find_prefix(image, count)
  if rule == "file":
    return lambda record, image, file: os.path.basename(file).split(".")[0] or file
  if kind == "rule":
    pairs = [part.strip().rpartition("=") for part in rest.split(";") if part.strip()]
    if pairs and all(pattern and name for pattern, _, name in pairs):
      return _make_pattern_finder([(pattern, name) for pattern, _, name in pairs])
  raise InputError(f"pool.source={rule!r}: allowed are {FORMS}.")


def as_text(value: Any) -> str:
  return (
    value
    if isinstance(value, str)
    else json.dumps(value, ensure_ascii=False, default=str)
  )


def _find_by_itself(record: Record, image: str | None, file: str) -> str:
  value = record.value
  if record.source is not None:
    return record.source
  if value is not None:
    for field in FIELDS:
      if found := _read_field(value, field):
        return found
    texts = value.get("texts")
    if isinstance(texts, list) and texts and isinstance(texts[0], dict):
      if found := _read_field(texts[0], "source"):
        return found
  if _lies_inside(record):
    return _find_folder(image or record.id) or name_file(file) or _default(image)
  return _find_prefix(image, 1)


def _lies_inside(record: Record) -> bool:
  """Whether a row's image lies in the pool's file, or would if it had one."""
  pictures = record.pictures
  return pictures is not None and all(picture.data is not None for picture in pictures)


def _read_field(value: dict[str, Any] | None, field: str) -> str | None:
  found = (value or {}).get(field)
  return None if found in (None, "") else as_text(found)


def _find_prefix(image: str | None, count: int) -> str:
  return _find_folder(image, count) or _default(image)


def _find_folder(path: str | None, count: int = 1) -> str:
  """The first folders of a path; "" if it has none, or none of its own."""
  *folders, _ = (path or "").removeprefix("./").split("/")
  return "/".join(folders[:count])


def _default(image: str | None) -> str:
  return TEXT_ONLY if image is None else NO_FOLDER


def _make_pattern_finder(pairs: list[tuple[str, str]]) -> FindSource:
  def find(record: Record, image: str | None, file: str) -> str:
    for pattern, name in pairs:
      for path in (image, file, os.path.basename(file)):
        if path is not None and fnmatch.fnmatchcase(path, pattern):
          return name
    return _find_by_itself(record, image, file)

  return find
