"""Opens, lists and writes files by path, local or in a cloud bucket (gs://, s3://)."""

import contextlib
import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath

from mllm_selector_jax import listing
from mllm_selector_jax.types import InputError

# One slash is enough, since pathlib joins the two.
_REMOTE = re.compile(r"(gs|s3|az):/")


def is_remote(path: str | os.PathLike) -> bool:
  """Returns whether a path is in a bucket (gs://...)."""
  return bool(_REMOTE.match(os.fspath(path)))


def open_binary(path: str | os.PathLike) -> io.BufferedIOBase:
  """Opens a file for reading bytes, with random access.

  Raises:
    OSError: the file cannot be opened.
    InputError: the library for this kind of storage is not installed.
  """
  if not is_remote(path):
    return open(path, "rb")
  # Unlike the cloud file itself, the buffer can limit the length of readline.
  return io.BufferedReader(_reach(path, lambda remote: remote.open("rb")), 1 << 20)


def measure(path: str | os.PathLike) -> int:
  """Returns the size of a file in bytes.

  Raises:
    OSError: the file does not exist.
  """
  if not is_remote(path):
    return os.path.getsize(path)
  return _reach(path, lambda remote: remote.stat().length)


def hash_file(path: str | os.PathLike) -> str:
  """Returns the SHA-256 of a file's bytes, in hexadecimal."""
  with open_binary(path) as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing(path: PurePath) -> Iterator[Path]:
  """Writes a local file atomically.

  Yields:
    The path of a temporary file, which is renamed to `path` if the block succeeds.

  Raises:
    OSError: the file could not be written; the temporary file has been deleted.
  """
  partial = Path(path.with_name(f".{path.name}.writing"))
  try:
    yield partial
    with open(partial, "rb+") as file:
      os.fsync(file.fileno())
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def is_file(path: str | os.PathLike) -> bool:
  """Returns whether a path is that of a file."""
  if not is_remote(path):
    return os.path.isfile(path)
  return _reach(path, lambda remote: remote.exists() and not remote.is_dir())


def is_folder(path: str | os.PathLike) -> bool:
  """Returns whether a path is that of a folder."""
  if not is_remote(path):
    return os.path.isdir(path)
  return _reach(path, lambda remote: remote.is_dir())


def exists(path: str | os.PathLike) -> bool:
  """Returns whether a file or folder exists; a broken link does."""
  if not is_remote(path):
    return os.path.lexists(path)
  return _reach(path, lambda remote: remote.exists())


def find(pattern: str) -> list[str]:
  """Returns the files and folders that match a pattern (`*`, `?`, `[...]`), sorted.

  Special characters in the names of existing parent folders are taken literally.
  """
  import glob

  if not is_remote(pattern):
    head, tail = _split_existing(pattern)
    return sorted(glob.glob(glob.escape(head) + tail))
  folder, _, name = pattern.rpartition("/")
  return _reach(folder, lambda remote: sorted(str(p) for p in remote.glob(name)))


def _split_existing(pattern: str) -> tuple[str, str]:
  """Splits a pattern into the longest path of an existing folder, and the rest."""
  index = len(pattern)
  while (index := pattern.rfind("/", 0, index)) > 0:
    if os.path.isdir(pattern[:index]):
      return pattern[:index], pattern[index:]
  return "", pattern


def walk(folder: str) -> Iterator[str]:
  """Yields the files of a folder and its subfolders, as sorted relative paths.

  Links are followed, but no folder is entered twice. Hidden files and folders are
  skipped.
  """
  if is_remote(folder):
    yield from _reach(folder, lambda remote: sorted(_walk_remote(remote, "")))
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
      elif entry.is_file() or entry.is_symlink():  # a broken link is listed too
        yield inside + entry.name

  yield from list_files(folder, "")


def _walk_remote(folder, inside: str) -> Iterator[str]:
  for entry in folder.iterdir():
    if entry.name.startswith("."):
      continue
    if entry.is_dir():
      yield from _walk_remote(entry, f"{inside}{entry.name}/")
    else:
      yield inside + entry.name


def split_paths(text: str) -> list[str]:
  """Splits a text into paths, which are separated by commas.

  A comma belongs to a path if the path with it exists, or if it is inside brackets, as
  in `ai2d(cauldron,llava)/*.parquet` and `{a,b}.json`. The text may also be a list in
  brackets: `[a.json, b.json]`.
  """
  items = listing.read_brackets(text)
  if items is not None and ("," in text or "'" in text) and not _is_path(text):
    return items
  pieces = _split_outside_brackets(text)
  names, start = [], 0
  while start < len(pieces):
    stop = len(pieces)
    while stop > start + 1 and not _is_path(",".join(pieces[start:stop])):
      stop -= 1
    names.append(",".join(pieces[start:stop]).strip())
    start = stop
  # A text in brackets may still be several paths.
  paths = []
  for name in names:
    if name:
      is_single = "," not in name or _is_path(name)
      paths += [name] if is_single else _split_if_all_exist(name)
  return paths


def _split_if_all_exist(name: str) -> list[str]:
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
  """Returns whether a path exists; a text with several URLs is never a path."""
  text = text.strip()
  return text.count("://") <= 1 and exists(text)


def _reach(path, function):
  """Calls a function with the `epath.Path` of a path, and explains its errors."""
  from etils import epath

  # Clients of clouds show a traceback for each failure, which is explained here.
  logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
  try:
    return function(epath.Path(path))
  except ImportError as error:
    raise InputError(f"{path}: {error}.") from error
  except Exception as error:
    # They raise their own errors, some of them OSErrors without a path, if access,
    # network or bucket are missing.
    if isinstance(error, OSError) and type(error).__module__ == "builtins":
      raise
    text = f"{type(error).__name__}: {str(error)[:200]}"
    raise OSError(0, text, str(path)) from error
