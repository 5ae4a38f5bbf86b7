"""Reads rows of evaluation files: JSON, JSONL, Parquet and TSV, with images or not."""

import base64
import binascii
import csv
import io
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from mllm_selector_jax import storage
from mllm_selector_jax.data import formats, record_schemas
from mllm_selector_jax.data.json_text import parsing
from mllm_selector_jax.data.json_text.records import read_records
from mllm_selector_jax.data.record_schemas import image_values
from mllm_selector_jax.evaluation.question import Place
from mllm_selector_jax.types import InputError, Picture, Record, RowError

MOST_BYTES = 2 << 30  # the maximum of bytes in a JSON object, which is read at once
MOST_FIELD = 1 << 28  # the maximum of characters in a TSV field, an image in base64
_SHORT = 64  # a shorter text in the image column names the row that has the image


class Row(NamedTuple):
  """One row of an evaluation file.

  Attributes:
    path: the path of the file.
    where: the place of the row, with the path, for messages.
    number: the number of the row, from 0.
    value: the fields of the row; of images that are inside the file, "image" is the
      name, or the list of the names.
    places: the place of each image, if one is inside the file; None for one that is a
      file of its own.
    error: the reason why there is no value.
  """

  path: str
  where: str
  number: int
  value: dict[str, Any]
  places: tuple[Place | None, ...] = ()
  error: RowError | None = None


def check_file(path: str) -> None:
  """Raises InputError if a file is missing or empty."""
  if not storage.is_file(path):
    raise InputError(f"{path}: the evaluation file is not there.")
  if not storage.measure(path):
    raise InputError(f"{path}: the evaluation file is empty.")


def is_parquet(path: str) -> bool:
  with storage.open_binary(path) as file:
    return file.read(4) == b"PAR1"


def read_rows(path: str) -> Iterator[Row]:
  """Iterates over the rows of a Parquet or TSV file, a JSON list or JSONL.

  Raises:
    InputError: the file is missing, empty or broken.
  """
  check_file(path)
  inside = path.endswith(".tsv") or is_parquet(path)
  records = open_inside(path).records() if inside else read_records(path)
  for number, record in enumerate(records):
    where = f"{path}, row {number}"
    if not inside:
      where += f" at byte {record.offset}"
    if record.reason is not None:
      yield Row(path, where, number, {}, (), RowError(record.reason, record.detail))
      continue
    value = record.value
    pictures = record.pictures if inside else image_values.take_pictures(value)
    places: list[Place | None] = []
    if pictures and any(picture.data is not None for picture in pictures):
      names = []
      for order, picture in enumerate(pictures):
        is_file = picture.data is None
        place = Place(path, record.offset, record.length, order)
        places.append(None if is_file else place)
        nameless = f"row {number} of {os.path.basename(path)}"
        nameless += f", image {order + 1}" if len(pictures) > 1 else ""
        names.append(picture.name or nameless)
      value = value | {"image": names if len(names) > 1 else names[0]}
    yield Row(path, where, number, value, tuple(places))


def read_object(path: str) -> dict[str, Any]:
  """Reads a file that consists of one JSON object.

  Raises:
    InputError: the file is missing, too large, broken, or not one JSON object.
  """
  check_file(path)
  if (size := storage.measure(path)) > MOST_BYTES:
    raise InputError(f"{path}: {size:,} bytes; at most {MOST_BYTES:,} are read.")
  try:
    with storage.open_binary(path) as file:
      value = parsing.DECODER.decode(file.read().decode("utf-8-sig"))
  except (ValueError, RecursionError) as error:
    detail = str(error) or type(error).__name__
    raise InputError(
      f"{path}: not whole JSON ({detail[:200]}). Copy the file again."
    ) from error
  if not isinstance(value, dict):
    raise InputError(f"{path}: expected one JSON object, found a list or a literal.")
  return value


def list_members(path: str, value: dict[str, Any], name: str) -> Iterator[Row]:
  """Iterates over the objects of a list in a JSON object.

  Args:
    path: the file of the object, for messages.
    value: the object.
    name: the key of the list.

  Raises:
    InputError: there is no list under this key.
  """
  members = value.get(name)
  if not isinstance(members, list):
    has = ", ".join(map(repr, list(value)[:8]))
    raise InputError(f'{path}: expected a list under "{name}"; the file has {has}.')
  for number, member in enumerate(members):
    yield _make_row(path, f'{path}, "{name}" {number}', number, member)


def read_keyed(path: str) -> Iterator[Row]:
  """Iterates over the values of a JSON object, with their keys as "id"."""
  for number, (key, member) in enumerate(read_object(path).items()):
    row = _make_row(path, f"{path}, {key!r}", number, member)
    yield row if row.error else row._replace(value={**member, "id": key})


def _make_row(path: str, where: str, number: int, value: Any) -> Row:
  if isinstance(value, dict):
    return Row(path, where, number, value)
  return Row(path, where, number, {}, (), RowError("malformed", "not an object"))


class TsvFile:
  """A file of tab-separated text with a header and images in base64 in "image".

  A short text in "image" is the index of the row that holds the image, as in the
  rotated rows of MMBench.
  """

  def __init__(self, path: str):
    self.path = path
    csv.field_size_limit(MOST_FIELD)
    try:
      with storage.open_binary(path) as file:
        self._header, self._start = self._read_line(file)
    except (csv.Error, UnicodeDecodeError) as error:
      raise InputError(f"{path}: not tab-separated text ({error}).") from error
    if len(set(self._header)) < len(self._header) or len(self._header) < 2:
      raise InputError(f"{path}: the first line is not a header with tabs.")
    self._images: dict[str, int] = {}  # from a row's index to its offset, if it has one

  def _read_line(self, file: io.BufferedReader) -> tuple[list[str], int]:
    """Returns the fields of the next record, and the offset of the one after it."""
    lines = iter(lambda: file.readline().decode("utf-8-sig", "strict"), "")
    fields = next(csv.reader(lines, delimiter="\t"), [])
    return fields, file.tell()

  def records(self) -> Iterator[Record]:
    """Iterates over the records in order, without decoding images."""
    offset = self._start
    with storage.open_binary(self.path) as file:
      while True:
        file.seek(offset)
        try:
          fields, end = self._read_line(file)
        except (csv.Error, UnicodeDecodeError) as error:
          raise InputError(
            f"{self.path}, byte {offset:,}: not tab-separated text ({error})."
          ) from error
        if end == offset:
          return
        if fields:
          yield self._make_record(fields, offset, end - offset)
        offset = end

  def _make_record(self, fields: list[str], offset: int, length: int) -> Record:
    if len(fields) != len(self._header):
      detail = f"{len(fields)} fields, the header has {len(self._header)}"
      return Record(offset, length, None, "malformed", detail)
    value = dict(zip(self._header, fields, strict=True))
    data = value.get("image") or ""
    if len(data) >= _SHORT:
      self._images[value.get("index", "")] = offset
    elif data in self._images:
      offset = self._images[data]
    elif data:
      detail = f"the image is {data!r}, neither base64 nor an earlier row's index"
      return Record(offset, length, None, "missing image", detail)
    pictures = (Picture(None, b""),) if data else ()
    return Record(offset, length, value, pictures=pictures)

  def read(self, offset: int, length: int) -> Record:
    """Returns the record at a place, with the bytes of its image.

    Raises:
      RowError: the image is not base64.
    """
    with storage.open_binary(self.path) as file:
      file.seek(offset)
      fields, _ = self._read_line(file)
    value = dict(zip(self._header, fields, strict=False))
    try:
      data = base64.b64decode(value.get("image", ""), validate=False)
    except binascii.Error as error:
      raise RowError("unreadable image", f"not base64 ({error})") from error
    return Record(offset, length, value, pictures=(Picture(None, data),))


def open_inside(path: str) -> TsvFile | formats.PoolFile:
  """Opens a file that holds images: TSV by its suffix, otherwise by its content."""
  return TsvFile(path) if path.endswith(".tsv") else formats.open_file(path)


class ImagesInFiles:
  """Reads images that are stored inside files, and keeps these files open."""

  def __init__(self):
    self._files: dict[str, TsvFile | formats.PoolFile] = {}

  def read(self, place: Place) -> bytes:
    """Returns the encoded bytes of an image.

    Raises:
      RowError: the row holds no image.
    """
    if place.path not in self._files:
      self._files[place.path] = open_inside(place.path)
    record = self._files[place.path].read(place.offset, place.length)
    pictures = record_schemas.read_pictures(record)
    data = pictures[place.number].data if place.number < len(pictures) else None
    if data is None:
      raise RowError("missing image", "the row holds no image")
    return data
