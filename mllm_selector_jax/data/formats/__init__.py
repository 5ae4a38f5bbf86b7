"""Opens pool files of every format. A format is one class; `FORMATS` lists them."""

import collections
import threading
from typing import Any

from mllm_selector_jax import plugins
from mllm_selector_jax.data.files import compressed
from mllm_selector_jax.data.files.stand_ins import name_stranger
from mllm_selector_jax.data.formats.array_record_file import ArrayRecordFile
from mllm_selector_jax.data.formats.arrow_file import ArrowFile
from mllm_selector_jax.data.formats.json_file import JsonFile
from mllm_selector_jax.data.formats.parquet_file import ParquetFile
from mllm_selector_jax.data.formats.pool_file import HEAD, PoolFile, explain, measure
from mllm_selector_jax.data.formats.tar_file import TarFile
from mllm_selector_jax.types import InputError

__all__ = [
  "FORMATS",
  "LOOKUP",
  "JsonFile",
  "OpenFiles",
  "ParquetFile",
  "PoolFile",
  "find_format",
  "find_plugged",
  "list_formats",
  "measure",
  "open_file",
]

FORMATS: tuple[type[PoolFile], ...] = (
  ParquetFile,
  ArrowFile,
  TarFile,
  ArrayRecordFile,
  JsonFile,
)


def _adapt(name: str, plugin: Any) -> type[PoolFile]:
  if not (isinstance(plugin, type) and issubclass(plugin, PoolFile)):
    raise TypeError("a format is a subclass of data.formats.PoolFile.")
  if missing := sorted(plugin.__abstractmethods__):
    raise TypeError(f"the class lacks {', '.join(missing)}.")
  return plugin


LOOKUP = plugins.Lookup(
  "format",
  f"{plugins.PACKAGE}.formats",
  {form.__name__: form for form in FORMATS},
  _adapt,
)
SETTING = "pool.formats"
_MOST_OPEN = 64  # files


def find_plugged() -> tuple[type[PoolFile], ...]:
  """Returns the plug-in formats that `pool.formats` of the open run names.

  Raises:
    InputError: there is no such format; see `plugins.Lookup.find`.
  """
  names = plugins.list_given(SETTING)
  return tuple(LOOKUP.find(name, SETTING, "names") for name in names)


def list_formats() -> tuple[type[PoolFile], ...]:
  """Returns all formats in the order in which they are tried, plug-ins first."""
  return (*find_plugged(), *FORMATS)


def find_format(path: str) -> type[PoolFile]:
  """Recognises the format of a file by its first bytes, after decompression.

  Raises:
    InputError: the file cannot be read, or is only a stand-in for the data, such as a
      Git LFS pointer.
  """
  try:
    with compressed.open_plain(path) as file:
      head = file.read(HEAD)
  except OSError as error:
    raise explain(path, error) from error
  for form in find_plugged():
    with plugins.calling(f"the format {form.__name__}"):
      if form.matches(path, head):
        return form
  if stranger := name_stranger(head):
    raise InputError(f"{path}: {stranger}.")
  # A file of no known format is read as JSON, whose reader says what is wrong with it.
  return next((form for form in FORMATS if form.matches(path, head)), JsonFile)


def open_file(path: str) -> PoolFile:
  """Opens a pool file of any format.

  Raises:
    InputError: the file is missing or broken.
  """
  return find_format(path)(path)


class OpenFiles:
  """Keeps pool files open for reading in random order; safe to use from threads."""

  def __init__(self):
    self._files: collections.OrderedDict[str, PoolFile] = collections.OrderedDict()
    self._lock = threading.Lock()

  def get(self, path: str) -> PoolFile:
    """Returns the open file of a path, and opens it at the first call."""
    with self._lock:
      if path not in self._files:
        self._files[path] = open_file(path)
        if len(self._files) > _MOST_OPEN:
          self._files.popitem(last=False)
      self._files.move_to_end(path)
      return self._files[path]
