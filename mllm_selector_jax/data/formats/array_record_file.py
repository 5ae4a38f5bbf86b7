"""Reads ArrayRecord files: TFDS data sets, prepared pools, or JSON records.

The files of a TFDS data set have a `features.json` beside them. A prepared pool is a
TFDS data set whose feature `record` holds the record as JSON; see `prepared_pool`.
Without a `features.json`, every record is JSON.
"""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mllm_selector_jax import storage
from mllm_selector_jax.data.formats import tf_example
from mllm_selector_jax.data.formats.pool_file import PoolFile, changed
from mllm_selector_jax.data.json_text import parsing, records
from mllm_selector_jax.types import REASONS, InputError, Picture, Record

_SIGNATURE = bytes.fromhex("83af70d10d884a3f")  # of Riegeli, the underlying format
# By default, every open file would have a readahead buffer of 16 MB.
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


class ArrayRecordFile(PoolFile):
  """An ArrayRecord file; the offset of a record is its number."""

  name = "ArrayRecord"

  def __init__(self, path: str):
    from array_record.python import array_record_module

    super().__init__(path)
    if storage.is_remote(path):
      raise InputError(
        f"{path}: ArrayRecord files can only be read from a local disk. Copy it there."
      )
    self._reader = array_record_module.ArrayRecordReader(self.place, _OPTIONS)
    if not self._reader.ok():
      raise InputError(f"{path}: not a complete ArrayRecord file. Copy it again.")
    self.extent = self._reader.num_records()
    if not self.extent:
      raise InputError(f"{path}: the file has no records.")
    self._lock = threading.Lock()
    self._features = tf_example.read_features(os.path.dirname(path))

  @classmethod
  def matches(cls, path: str, head: bytes) -> bool:
    return head.startswith(_SIGNATURE)

  def records(self) -> Iterator[Record]:
    for number in range(self.extent):
      try:
        data = self._read_bytes(number)
      except RuntimeError as error:
        detail = str(error).partition(":")[2].strip()[:200]
        yield Record(number, 0, None, "malformed", f"record {number:,}: {detail}")
        continue
      yield self._parse(number, data)

  def read(self, offset: int, length: int) -> Record:
    return self._parse(offset, self._read_known(offset))

  def count(self) -> int:
    return self.extent

  def image_names(self) -> Iterator[str]:
    if self._features is None:
      yield from super().image_names()

  def text(self, offset: int, length: int) -> bytes:
    data = self._read_known(offset)
    if self._features is None:
      return parsing.make_strict(data)
    if "record" in self._features:
      return tf_example.decode(data)["record"][0]
    return super().text(offset, length)

  def copy(self, places: Iterable[tuple[int, int]], out: Path) -> None:
    with open_writer(out) as writer:
      for number, _ in places:
        writer.write(self._read_known(number))

  def done(self, record: Record) -> float:
    return (record.offset + 1) / self.extent

  def _read_bytes(self, number: int) -> bytes:
    with self._lock:
      # Sequential reading without `seek` is several times as fast.
      if self._reader.record_index() != number:
        self._reader.seek(number)
      return self._reader.read()

  def _read_known(self, number: int) -> bytes:
    try:
      if 0 <= number < self.extent:
        return self._read_bytes(number)
    except RuntimeError as error:
      raise changed(self.path, f"record {number:,} is damaged") from error
    raise changed(self.path, f"no record {number:,}")

  def _parse(self, number: int, data: bytes) -> Record:
    try:
      if self._features is None:
        return _parse_json(number, data)
      value = tf_example.build(self._features, tf_example.decode(data))
    except ValueError as error:
      detail = f"record {number:,}: {str(error)[:200]}"
      return Record(number, len(data), None, "malformed", detail)
    if "record" in self._features:
      return _parse_prepared(number, len(data), value)
    pictures = tuple(_take_pictures(value))
    return Record(number, len(data), value, pictures=pictures)


def _parse_json(number: int, data: bytes) -> Record:
  if len(data) > records.MOST_BYTES:
    raise ValueError(f"{len(data):,} bytes of JSON")
  value, detail = parsing.parse_bytes(data)
  if value is None:
    raise ValueError(detail)
  return Record(number, len(data), value)


def _parse_prepared(number: int, length: int, features: dict[str, Any]) -> Record:
  """Makes a record from the features of a prepared pool, which hold its images."""
  extra: dict[str, Any] = {
    "id": features.get("id") or None,
    "source": features.get("source") or None,
    "detail": features.get("detail") or "",
  }
  if reason := features.get("reason"):
    extra["reason"] = reason if reason in REASONS else "malformed"
  if reason and not features.get("record"):
    return Record(number, length, None, **extra)
  value, detail = parsing.parse(features.get("record") or "")
  if value is None:
    extra |= {"reason": "malformed", "detail": detail}
    return Record(number, length, None, **extra)
  names = [name or None for name in features.get("names") or []]
  images = [image.data for image in features.get("images") or [] if image is not None]
  # The numbers differ if no image could be read, or if another program wrote the file.
  if len(names) != len(images):
    names += [None] * (len(images) - len(names))
    images += [None] * (len(names) - len(images))
  pictures = tuple(map(Picture, names, images))
  return Record(number, length, value, pictures=pictures, **extra)


def _take_pictures(value: dict[str, Any]) -> Iterator[Picture]:
  """Removes the images from a record, and yields them."""
  for name, field in list(value.items()):
    items = field if isinstance(field, list) else [field]
    pictures = [item for item in items if isinstance(item, Picture)]
    if pictures:
      del value[name]
      yield from pictures


@contextlib.contextmanager
def open_writer(path: str | os.PathLike) -> Iterator[Any]:
  """Opens a writer of ArrayRecord files with groups of one record, as TFDS does."""
  from array_record.python import array_record_module

  writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
  try:
    yield writer
  finally:
    writer.close()
