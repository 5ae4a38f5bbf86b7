"""What every format of a pool file can do."""

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

HEAD = 512  # bytes that a format is recognised by


class PoolFile(abc.ABC):
  """One pool file, opened.

  A format is one subclass; `formats.FORMATS` lists them.

  Attributes:
    name: of the format, for people.
    suffixes: of the files of a folder that are taken for this format's.
    path: of the file, as it was given.
    place: of its bytes: another file where this one is packed, see `compressed`.
    extent: what the offsets of its records stay below.
  """

  name: ClassVar[str]
  suffixes: ClassVar[tuple[str, ...]] = ()
  path: str
  place: str
  extent: int

  def __init__(self, path: str):
    """Opens the file.

    Raises:
      InputError: it is missing or broken.
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
    """Whether a file is of this format, by its name and its first bytes."""

  @abc.abstractmethod
  def records(self) -> Iterator[Record]:
    """Every record, in order, in memory that does not grow with the file.

    Raises:
      InputError: what follows cannot be told apart any more.
    """

  @abc.abstractmethod
  def read(self, offset: int, length: int) -> Record:
    """One record, by where it stands; safe to call from several threads.

    Raises:
      InputError: no record stands there (any more).
    """

  @abc.abstractmethod
  def copy(self, places: Iterable[tuple[int, int]], out: Path) -> None:
    """Writes the records at these places, ascending, to a file of this format."""

  def count(self) -> int:
    return sum(1 for _ in self.records())

  def image_names(self) -> Iterator[str]:
    """Names of the images that lie outside the file, as far as records name any."""
    for record in self.records():
      try:
        pictures = record_schemas.read_pictures(record)
      except RowError:
        continue
      for picture in pictures:
        if picture.data is None and picture.name is not None:
          yield picture.name

  def text(self, offset: int, length: int) -> bytes:
    """One record as JSON, without the images that lie inside the file."""
    value = as_json(self.read(offset, length).value)
    return json.dumps(value, ensure_ascii=False, default=str).encode()

  def done(self, record: Record) -> float:
    """The share of the file that is read when this record is."""
    return (record.offset + record.length) / max(1, self.extent)


def measure(path: str) -> int:
  """Bytes of a pool file.

  Raises:
    InputError: it is not there.
  """
  try:
    return storage.measure(path)
  except OSError as error:
    raise explain(path, error) from error


def explain(path: str, error: OSError) -> InputError:
  """The message for a file that cannot be read."""
  if isinstance(error, FileNotFoundError):
    return InputError(f"{path}: the pool file does not exist.")
  return InputError(f"{path}: cannot be read ({error.strerror or error}).")


def first_line(error: Exception) -> str:
  """An error's message, short enough to be a part of another."""
  return (str(error).splitlines() or [type(error).__name__])[0][:200]


def changed(path: str, what: str) -> InputError:
  """The message for a record that is not where it was."""
  return InputError(
    f"{path}: {what}; the file changed since the pool was checked. Put the old file"
    " back or check the pool again."
  )


def as_json(value: Any) -> Any:
  """Values that strict JSON has no word for become null."""
  if isinstance(value, dict):
    return {str(key): as_json(inner) for key, inner in value.items()}
  if isinstance(value, list):
    return [as_json(inner) for inner in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return None if isinstance(value, bytes) else value
