"""ArrayRecord: TFDS data sets, prepared pools, or JSON records.

Beside a TFDS data set's files lies `features.json`. A prepared pool is one whose
feature `record` is the record's own JSON, see `prepared_pool`. Without that file the
records are JSON.
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

_SIGNATURE = bytes.fromhex("83af70d10d884a3f")  # of Riegeli, which it is made of
_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # a 16 MB buffer each, else


class ArrayRecordFile(PoolFile):
  """Numbered records; the offset of a record is its number."""

  name = "ArrayRecord"

  def __init__(self, path: str):
    from array_record.python import array_record_module

    super().__init__(path)
    if storage.is_remote(path):
      raise InputError(f"{path}: ArrayRecord files are read from disk; copy it there.")
    self._reader = array_record_module.ArrayRecordReader(self.place, _OPTIONS)
    if not self._reader.ok():
      raise InputError(f"{path}: not a whole ArrayRecord file. Copy it again.")
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
      # In order, `read` without a number is several times as fast.
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


def _parse_prepared(number: int, length: int, found: dict[str, Any]) -> Record:
  """A record as `prepared_pool` wrote it; its images were looked up then."""
  extra: dict[str, Any] = {
    "id": found.get("id") or None,
    "source": found.get("source") or None,
    "detail": found.get("detail") or "",
  }
  if reason := found.get("reason"):
    extra["reason"] = reason if reason in REASONS else "malformed"
  if reason and not found.get("record"):
    return Record(number, length, None, **extra)
  value, detail = parsing.parse(found.get("record") or "")
  if value is None:
    extra |= {"reason": "malformed", "detail": detail}
    return Record(number, length, None, **extra)
  names = [name or None for name in found.get("names") or []]
  images = [image.data for image in found.get("images") or [] if image is not None]
  if len(names) != len(images):  # none could be read, or another program wrote them
    names += [None] * (len(images) - len(names))
    images += [None] * (len(names) - len(images))
  pictures = tuple(map(Picture, names, images))
  return Record(number, length, value, pictures=pictures, **extra)


def _take_pictures(value: dict[str, Any]) -> Iterator[Picture]:
  """The record's images, which leave it."""
  for name, found in list(value.items()):
    listed = found if isinstance(found, list) else [found]
    pictures = [item for item in listed if isinstance(item, Picture)]
    if pictures:
      del value[name]
      yield from pictures


@contextlib.contextmanager
def open_writer(path: str | os.PathLike) -> Iterator[Any]:
  """Writes records that are read one at a time, as TFDS has them."""
  from array_record.python import array_record_module

  writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
  try:
    yield writer
  finally:
    writer.close()
