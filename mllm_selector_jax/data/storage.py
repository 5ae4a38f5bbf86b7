"""Opens files by path, local or of a cloud bucket (gs://, s3://)."""

import hashlib
import io
import os
import re
from typing import BinaryIO

from mllm_selector_jax.types import InputError

_REMOTE = re.compile(r"(gs|s3|az)://")


def is_remote(path: str | os.PathLike) -> bool:
  return bool(_REMOTE.match(os.fspath(path)))


def open_binary(path: str | os.PathLike) -> BinaryIO:
  """A file's bytes, with seek.

  Raises:
    OSError: it cannot be opened.
    InputError: what reads its kind of storage is not installed.
  """
  if not is_remote(path):
    return open(path, "rb")
  # Cloud files have no readline of a limited length.
  return io.BufferedReader(_reach(path, lambda place: place.open("rb")), 1 << 20)


def measure(path: str | os.PathLike) -> int:
  """Bytes of a file.

  Raises:
    OSError: it is not there.
  """
  if not is_remote(path):
    return os.path.getsize(path)
  return _reach(path, lambda place: place.stat().length)


def hash_file(path: str | os.PathLike) -> str:
  """SHA-256 of a file's bytes, in hexadecimal."""
  with open_binary(path) as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def is_file(path: str | os.PathLike) -> bool:
  if not is_remote(path):
    return os.path.isfile(path)
  return _reach(path, lambda place: place.exists() and not place.is_dir())


def is_folder(path: str | os.PathLike) -> bool:
  if not is_remote(path):
    return os.path.isdir(path)
  return _reach(path, lambda place: place.is_dir())


def find(pattern: str) -> list[str]:
  """Files whose path fits the pattern (`*`, `?`, `[...]`), sorted."""
  import glob

  if not is_remote(pattern):
    return sorted(glob.glob(pattern))
  folder, _, name = pattern.rpartition("/")
  return _reach(folder, lambda place: sorted(str(p) for p in place.glob(name)))


def _reach(path, function):
  from etils import epath

  try:
    return function(epath.Path(path))
  except ImportError as error:
    raise InputError(f"{path}: {error}.") from error
  except OSError:
    raise
  # Cloud clients have errors of their own: no access, no network, no bucket.
  except Exception as error:
    raise OSError(0, f"{type(error).__name__}: {str(error)[:200]}", path) from error
