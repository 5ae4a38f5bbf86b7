"""Rows of evaluation files: JSON, JSONL, Parquet and TSV, images inside or not."""

import base64
import binascii
import csv
import io
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from mllm_selector_jax import storage
from mllm_selector_jax.data import formats
from mllm_selector_jax.data.formats.parquet_file import ParquetFile
from mllm_selector_jax.data.json_text import parsing
from mllm_selector_jax.data.json_text.records import read_records
from mllm_selector_jax.evaluation.question import Place
from mllm_selector_jax.types import InputError, Picture, Record, RowError

MOST_BYTES = 2 << 30  # of a JSON object, which is held whole
MOST_FIELD = 1 << 28  # characters of a TSV field, an image in base64
_SHORT = 64  # characters; what is shorter refers to another row's image


class Row(NamedTuple):
  """One row of an evaluation file.

  Attributes:
    path: of the file.
    where: in the file, for messages.
    number: counted from 0.
    value: what it holds; an image inside the file is its name there.
    place: of the image inside the file.
    error: why there is no value.
  """

  path: str
  where: str
  number: int
  value: dict[str, Any]
  place: Place | None = None
  error: RowError | None = None


def check_file(path: str) -> None:
  """Refuses a file that is missing or empty."""
  if not storage.is_file(path):
    raise InputError(f"{path}: the evaluation file is not there.")
  if not storage.measure(path):
    raise InputError(f"{path}: the evaluation file is empty.")


def is_parquet(path: str) -> bool:
  with storage.open_binary(path) as file:
    return file.read(4) == b"PAR1"


def read_rows(path: str) -> Iterator[Row]:
  """The rows of a Parquet or TSV file, a JSON list or JSONL.

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
      yield Row(path, where, number, {}, None, RowError(record.reason, record.detail))
      continue
    value, place = record.value, None
    if record.pictures and record.pictures[0].data is not None:
      place = Place(path, record.offset, record.length)
      name = record.pictures[0].name or f"row {number} of {os.path.basename(path)}"
      value = value | {"image": name}
    yield Row(path, where, number, value, place)


def read_object(path: str) -> dict[str, Any]:
  """The one JSON object that a published file is.

  Raises:
    InputError: it is missing, too large, broken, or something else.
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
  """The objects of the list under a name of the JSON object that a file holds.

  Raises:
    InputError: the file has no such list.
  """
  members = value.get(name)
  if not isinstance(members, list):
    has = ", ".join(map(repr, list(value)[:8]))
    raise InputError(f'{path}: expected a list under "{name}"; the file has {has}.')
  for number, member in enumerate(members):
    yield _make_row(path, f'{path}, "{name}" {number}', number, member)


def read_keyed(path: str) -> Iterator[Row]:
  """The objects of a JSON object, with their keys under "id"."""
  for number, (key, member) in enumerate(read_object(path).items()):
    row = _make_row(path, f"{path}, {key!r}", number, member)
    yield row if row.error else row._replace(value={**member, "id": key})


def _make_row(path: str, where: str, number: int, value: Any) -> Row:
  if isinstance(value, dict):
    return Row(path, where, number, value)
  return Row(path, where, number, {}, None, RowError("malformed", "not an object"))


class TsvFile:
  """A table of tab-separated text with a header, an image in base64 in "image".

  A short text there is the index of the row that holds the image (as MMBench's
  rotated rows have it).
  """

  def __init__(self, path: str):
    self.path = path
    csv.field_size_limit(MOST_FIELD)
    with storage.open_binary(path) as file:
      self._header, self._start = self._read_line(file)
    if len(set(self._header)) < len(self._header) or len(self._header) < 2:
      raise InputError(f"{path}: the first line is not a header with tabs.")
    self._images: dict[str, int] = {}  # index -> offset of the row with the image

  def _read_line(self, file: io.BufferedReader) -> tuple[list[str], int]:
    """The fields of the record that begins here, and where the next one does."""
    lines = iter(lambda: file.readline().decode("utf-8-sig", "strict"), "")
    fields = next(csv.reader(lines, delimiter="\t"), [])
    return fields, file.tell()

  def records(self) -> Iterator[Record]:
    """Every record, in order; images are not decoded."""
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
    """The record at a place, with its image's bytes.

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
  """A file that holds images."""
  return TsvFile(path) if path.endswith(".tsv") else ParquetFile(path)


class Insides:
  """Reads images that lie inside files, which stay open."""

  def __init__(self):
    self._files: dict[str, TsvFile | formats.PoolFile] = {}

  def read(self, place: Place) -> bytes:
    """An image file's bytes.

    Raises:
      RowError: there is no image (any more).
    """
    if place.path not in self._files:
      self._files[place.path] = open_inside(place.path)
    record = self._files[place.path].read(place.offset, place.length)
    pictures = record.pictures or ()
    if not pictures or pictures[0].data is None:
      raise RowError("missing image", "the row holds no image")
    return pictures[0].data
