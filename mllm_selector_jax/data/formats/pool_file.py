"""Defines `PoolFile`, the interface of every format of pool files."""

import abc
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from mllm_selector_jax import storage
from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.data.files import compressed
from mllm_selector_jax.types import InputError, Record, RowError

HEAD = 512  # number of first bytes by which a format is recognised


class PoolFile(abc.ABC):
  """An open pool file. Each format is a subclass; `formats.FORMATS` lists them.

  Attributes:
    name: the name of the format, for messages.
    suffixes: suffixes by which a file of this format is recognised in a folder.
    path: the path of the file, as it was given.
    place: the path from which the bytes are read: that of the decompressed copy if the
      file is compressed (see `compressed`), otherwise `path`.
    extent: an upper bound, exclusive, of the offsets of the file's records.
  """

  name: ClassVar[str]
  suffixes: ClassVar[tuple[str, ...]] = ()
  path: str
  place: str
  extent: int

  def __init__(self, path: str):
    """Opens the file.

    Raises:
      InputError: the file is missing or broken.
    """
    self.path = path
    try:
      self.place = compressed.unpack(path)
      self.extent = storage.measure(self.place)
    except OSError as error:
      raise explain(path, error) from error

  @classmethod
  @abc.abstractmethod
  def matches(cls, path: str, head: bytes) -> bool:
    """Returns whether a file has this format.

    Args:
      path: the path of the file.
      head: its first `HEAD` bytes, decompressed.
    """

  @abc.abstractmethod
  def records(self) -> Iterator[Record]:
    """Yields every record, in order and with bounded memory.

    Raises:
      InputError: the file is damaged, so that later records cannot be found.
    """

  @abc.abstractmethod
  def read(self, offset: int, length: int) -> Record:
    """Reads one record; safe to call from several threads.

    Args:
      offset: the record's offset, as `records` gives it.
      length: the record's length, as `records` gives it.

    Raises:
      InputError: there is no record at this offset, or not any more.
    """

  @abc.abstractmethod
  def copy(self, places: Iterable[tuple[int, int]], out: Path) -> None:
    """Copies records unchanged to a new file of this format.

    Args:
      places: offset and length of each record, in ascending order.
      out: the path of the new file.
    """

  def count(self) -> int:
    """Returns the number of records."""
    return sum(1 for _ in self.records())

  def image_names(self) -> Iterator[str]:
    """Yields the names of the images that records name and the file does not hold."""
    for record in self.records():
      try:
        pictures = record_schemas.read_pictures(record)
      except RowError:
        continue
      for picture in pictures:
        if picture.data is None and picture.name is not None:
          yield picture.name

  def text(self, offset: int, length: int) -> bytes:
    """Returns one record as JSON in UTF-8, without images that the file holds."""
    value = as_json(self.read(offset, length).value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace")  # JSON's escape of a lone surrogate

  def done(self, record: Record) -> float:
    """Returns the fraction of the file that has been read after this record."""
    return (record.offset + record.length) / max(1, self.extent)


def measure(path: str) -> int:
  """Returns the size of a pool file in bytes.

  Raises:
    InputError: the file does not exist.
  """
  try:
    return storage.measure(path)
  except OSError as error:
    raise explain(path, error) from error


def explain(path: str, error: OSError) -> InputError:
  """Makes the error for a file that cannot be read."""
  if isinstance(error, FileNotFoundError):
    return InputError(f"{path}: the pool file does not exist.")
  return InputError(f"{path}: cannot be read ({error.strerror or error}).")


def first_line(error: Exception) -> str:
  """Returns the first line of an error's message, clipped for use in another one."""
  return (str(error).splitlines() or [type(error).__name__])[0][:200]


def changed(path: str, fault: str) -> InputError:
  """Makes the error for a record that is no longer where it was.

  Args:
    path: the path of the file.
    fault: what is wrong, such as "no row 7".
  """
  return InputError(
    f"{path}: {fault}; the file changed since the pool was checked. Put the old file"
    " back or check the pool again."
  )


def as_json(value: Any) -> Any:
  """Returns a value for strict JSON: bytes, NaN and infinities become None."""
  if isinstance(value, dict):
    return {str(key): as_json(inner) for key, inner in value.items()}
  if isinstance(value, list):
    return [as_json(inner) for inner in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return None if isinstance(value, bytes) else value
