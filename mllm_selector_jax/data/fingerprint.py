"""A cheap identity of a pool's files: by content and size, never by file time."""

import hashlib
import os
from collections.abc import Iterator, Sequence

from mllm_selector_jax.data.check import read_image_path
from mllm_selector_jax.data.images import check_path
from mllm_selector_jax.data.records import read_records
from mllm_selector_jax.data.table import PoolTable
from mllm_selector_jax.types import InputError, RowError


def fingerprint(
  data: Sequence[str], images: str | None, table: PoolTable | None = None
) -> str:
  """Identity of the data files' bytes and of the images' paths and sizes.

  An image whose bytes changed while its size did not is found when it is read
  again: the table holds its hash.

  Args:
    data: the pool's files.
    images: folder of the image paths.
    table: of an earlier check of the same bytes: spares parsing the files for the
      names of the images. The result is the same without it.

  Returns:
    64 hexadecimal characters.

  Raises:
    InputError: a data file cannot be read.
  """
  digest = hashlib.sha256()
  for path in data:
    try:
      with open(path, "rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    except FileNotFoundError as error:
      raise InputError(f"{path}: the pool file is not there.") from error
    except OSError as error:
      raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
  names = _names(data) if table is None else (n for n in table.image if n is not None)
  for name in sorted(set(names)):
    digest.update(f"{name}\0{_size(images, name)}\0".encode())
  return digest.hexdigest()


def _names(data: Sequence[str]) -> Iterator[str]:
  for path in data:
    for record in read_records(path):
      if record.value is not None:
        try:
          name = read_image_path(record.value)
        except RowError:
          continue
        if name is not None:
          yield name


def _size(folder: str | None, name: str) -> int:
  """Bytes of the image file; -1 if there is none, or none that is looked at."""
  if folder is None:
    return -1
  try:
    check_path(name)
    return os.stat(os.path.join(folder, name)).st_size
  except (OSError, RowError):
    return -1
