"""Opens files by path, local or of a cloud bucket (gs://, s3://)."""

import hashlib
import io
import os
import re
from collections.abc import Iterator
from typing import BinaryIO

from mllm_selector_jax.data import listing
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


def exists(path: str | os.PathLike) -> bool:
  if not is_remote(path):
    return os.path.lexists(path)
  return _reach(path, lambda place: place.exists())


def find(pattern: str) -> list[str]:
  """Files and folders whose path fits the pattern (`*`, `?`, `[...]`), sorted.

  Folders that are there by the very name are not taken for a pattern.
  """
  import glob

  if not is_remote(pattern):
    head, tail = _split_existing(pattern)
    return sorted(glob.glob(glob.escape(head) + tail))
  folder, _, name = pattern.rpartition("/")
  return _reach(folder, lambda place: sorted(str(p) for p in place.glob(name)))


def _split_existing(pattern: str) -> tuple[str, str]:
  """The longest beginning of whole folders that are there, and what follows."""
  place = len(pattern)
  while (place := pattern.rfind("/", 0, place)) > 0:
    if os.path.isdir(pattern[:place]):
      return pattern[:place], pattern[place:]
  return "", pattern


def walk(folder: str) -> Iterator[str]:
  """Files of a folder, in depth, sorted, by their paths inside it.

  Links are followed, each folder once. Hidden files and folders are passed over.
  """
  if is_remote(folder):
    yield from _reach(folder, lambda place: sorted(_walk_remote(place, "")))
    return
  seen = set()

  def list_files(path: str, inside: str) -> Iterator[str]:
    real = os.path.realpath(path)
    if real in seen:
      return
    seen.add(real)
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
      if entry.name.startswith("."):
        continue
      if entry.is_dir():
        yield from list_files(entry.path, f"{inside}{entry.name}/")
      elif entry.is_file() or entry.is_symlink():  # one that leads nowhere is named
        yield inside + entry.name

  yield from list_files(folder, "")


def _walk_remote(place, inside: str) -> Iterator[str]:
  for entry in place.iterdir():
    if entry.name.startswith("."):
      continue
    if entry.is_dir():
      yield from _walk_remote(entry, f"{inside}{entry.name}/")
    else:
      yield inside + entry.name


def split_paths(text: str) -> list[str]:
  """The paths that a text names, with commas between them.

  A comma is a part of a path where the path with it is there, and inside brackets:
  in `ai2d(cauldron,llava)/*.parquet` and `{a,b}.json` are none between paths. The whole
  may stand in brackets, as a list does: `[a.json, b.json]`.
  """
  inside = listing.read_brackets(text)
  if inside is not None and ("," in text or "'" in text) and not _is_path(text):
    return inside
  pieces = _split_outside_brackets(text)
  names, start = [], 0
  while start < len(pieces):
    stop = len(pieces)
    while stop > start + 1 and not _is_path(",".join(pieces[start:stop])):
      stop -= 1
    names.append(",".join(pieces[start:stop]).strip())
    start = stop
  # What stands in brackets may be several paths all the same.
  split = [
    [name] if "," not in name or _is_path(name) else _split_where_there(name)
    for name in names
    if name
  ]
  return [name for some in split for name in some]


def _split_where_there(name: str) -> list[str]:
  pieces = [piece.strip() for piece in name.split(",")]
  return pieces if all(piece and _is_path(piece) for piece in pieces) else [name]


def _split_outside_brackets(text: str) -> list[str]:
  pieces, depth = [""], 0
  for character in text:
    if character in "([{":
      depth += 1
    elif character in ")]}":
      depth = max(0, depth - 1)
    if character == "," and not depth:
      pieces.append("")
    else:
      pieces[-1] += character
  return text.split(",") if depth else pieces


def _is_path(text: str) -> bool:
  """Whether something is there; a bucket is asked about one path only."""
  text = text.strip()
  return text.count("://") <= 1 and exists(text)


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
