"""Reads compressed files (gzip, zstd, bzip2) and UTF-16 text through a plain copy.

Training reads records in random order, which a compressed file does not support. Such
a file is therefore decompressed once, into a subfolder of the temporary folder that
only the current user can enter. The copy is named by the hash of the compressed bytes,
so that all processes of the machine share it and it is never stale.

This module does not delete old copies. Their modification time is updated at every
use, so that the system's own cleaning of the temporary folder removes those that are
no longer used. The folder can also be deleted by hand while no run is active; a
missing copy is made again.
"""

import bz2
import codecs
import contextlib
import gzip
import io
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mllm_selector_jax import storage
from mllm_selector_jax.types import InputError, RunError

LEAST_CAP = 1 << 30  # bytes that every compressed file may expand to
MOST_RATIO = 200  # largest expansion of files that exceed LEAST_CAP
_CHUNK = 1 << 20  # bytes
_HEAD = 8  # bytes read to recognise an encoding
_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd", ".bz2")


class _Encoding(NamedTuple):
  """A compression or text encoding, and the function that opens it for reading."""

  name: str
  open: Callable[[io.BufferedIOBase], Any]


def _open_zstd(file: io.BufferedIOBase) -> Any:
  import pyarrow as pa

  return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")


class _Recoded(io.RawIOBase):
  """Recodes UTF-16 text as UTF-8; invalid sequences stay invalid."""

  def __init__(self, file: io.BufferedIOBase, encoding: str):
    self._file = file
    self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")

  def read(self, size: int = -1) -> bytes:
    while True:
      chunk = self._file.read(size)
      text = self._decoder.decode(chunk, final=not chunk)
      if text or not chunk:
        return text.removeprefix("\ufeff").encode("utf-8", "surrogatepass")


_GZIP = _Encoding("gzip", lambda file: gzip.GzipFile(fileobj=file))
_BZIP2 = _Encoding("bzip2", bz2.BZ2File)
_ZSTD = _Encoding("zstd", _open_zstd)
_LITTLE = _Encoding("UTF-16", lambda file: _Recoded(file, "utf-16-le"))
_BIG = _Encoding("UTF-16", lambda file: _Recoded(file, "utf-16-be"))
_ENCODINGS = {
  b"\x1f\x8b\x08": _GZIP,
  b"BZh": _BZIP2,
  b"\x28\xb5\x2f\xfd": _ZSTD,
  codecs.BOM_UTF16_LE: _LITTLE,
  codecs.BOM_UTF16_BE: _BIG,
  b"[\0": _LITTLE,
  b"{\0": _LITTLE,
  b"\0[": _BIG,
  b"\0{": _BIG,
}
# Maps a path to the file's state (see `_read_state`) and the path of its plain copy.
_plain_copies: dict[str, tuple[Any, str]] = {}


def plain_name(name: str) -> str:
  """Returns a file's name without the suffix of its compression."""
  stem, suffix = os.path.splitext(name)
  if suffix.lower() == ".tgz":
    return f"{stem}.tar"
  return stem if suffix.lower() in _SUFFIXES and stem else name


def open_plain(path: str | os.PathLike) -> io.BufferedIOBase:
  """Opens a file as `storage.open_binary` does, decompressed if it is compressed.

  Raises:
    OSError: the file cannot be opened.
    InputError: the compressed data are broken, or expand to more than is allowed.
    RunError: there is no room for the decompressed copy.
  """
  return storage.open_binary(unpack(path))


def unpack(path: str | os.PathLike) -> str:
  """Returns the path of a file's plain copy, or its own path if it is plain already.

  Raises:
    OSError, InputError, RunError: see `open_plain`.
  """
  path = os.fspath(path)
  state = _read_state(path)
  if path in _plain_copies and _plain_copies[path][0] == state:
    plain = _plain_copies[path][1]
    if plain == path or os.path.exists(plain):
      return plain
  plain = path
  if encoding := _find_encoding(path):
    plain = _find_copy(path, encoding)
    # Compressed text may be UTF-16. A file that is compressed twice is not followed;
    # the reader of the inner file reports it.
    if encoding.name != "UTF-16" and (inner := _find_encoding(plain)):
      plain = _find_copy(plain, inner) if inner.name == "UTF-16" else plain
  _plain_copies[path] = state, plain
  return plain


def _find_encoding(path: str) -> _Encoding | None:
  with storage.open_binary(path) as file:
    head = file.read(_HEAD)
  return next((e for magic, e in _ENCODINGS.items() if head.startswith(magic)), None)


def _read_state(path: str) -> Any:
  """Returns values that change when a file does.

  For a file in a bucket the result is None: such files are taken to be unchanged
  while the process lives, since asking before every read would be slow.
  """
  if storage.is_remote(path):
    return None
  status = os.stat(path)
  return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _find_copy(path: str, encoding: _Encoding) -> str:
  """Returns the path of a file's plain copy, and makes the copy if it is missing."""
  plain = os.path.join(_make_folder(), storage.hash_file(path))
  if os.path.exists(plain):
    with contextlib.suppress(OSError):
      os.utime(plain)
    return plain
  cap = max(LEAST_CAP, MOST_RATIO * storage.measure(path))
  partial = f"{plain}.{os.getpid()}-{os.urandom(4).hex()}"
  written = 0
  try:
    with open(partial, "xb") as out:
      for chunk in _read_chunks(path, encoding):
        written += len(chunk)
        if written > cap:
          raise InputError(
            f"{path}: decompresses to more than {cap:,} bytes, the most allowed for"
            f" {storage.measure(path):,} compressed ones. If that is right, decompress"
            " it and give the result."
          )
        out.write(chunk)
      out.flush()
      os.fsync(out.fileno())
    os.replace(partial, plain)
  except OSError as error:
    raise RunError(
      f"{path}: could not be decompressed to {partial} ({error.strerror or error} after"
      f" {written:,} bytes). Make room there, or set TMPDIR to a folder with room."
    ) from error
  finally:
    with contextlib.suppress(OSError):
      os.unlink(partial)
  return plain


def _read_chunks(path: str, encoding: _Encoding) -> Iterator[bytes]:
  """Yields the decompressed bytes, and raises InputError for broken data."""
  try:
    with storage.open_binary(path) as file, encoding.open(file) as stream:
      while chunk := stream.read(_CHUNK):
        yield chunk
  # gzip, bz2 and pyarrow report broken data as OSError, EOFError or ValueError.
  except (OSError, EOFError, ValueError, zlib.error) as error:
    detail = (str(error).splitlines() or [type(error).__name__])[0][:200]
    raise InputError(
      f"{path}: its {encoding.name} data are broken or cut off ({detail}). Copy the"
      " file again."
    ) from error


def _make_folder() -> str:
  """Makes the folder of plain copies, which only the current user can enter.

  Raises:
    RunError: the folder cannot be made, or belongs to another user.
  """
  folder = os.path.join(
    tempfile.gettempdir(), f"mllm_selector_jax-{os.getuid()}", "unpacked"
  )
  try:
    for path in (os.path.dirname(folder), folder):
      with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
      status = os.lstat(path)
      if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise RunError(
          f"{path} is not a folder of this user; remove it, or set TMPDIR to another"
          " folder."
        )
      if status.st_mode & 0o077:
        os.chmod(path, 0o700)
  except OSError as error:
    raise RunError(
      f"{folder}: could not be made ({error.strerror or error}); set TMPDIR to a"
      " folder that can be written to."
    ) from error
  return folder
