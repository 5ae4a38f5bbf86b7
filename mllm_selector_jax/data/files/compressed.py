"""Packed files (gzip, zstd, bzip2) and UTF-16 text, read by way of a plain copy.

Training reads records at random, which a packed file does not allow: it is unpacked
once, into a folder below the temporary one that only its owner can enter. The copy's
name is the hash of the packed bytes, so that it is shared by all processes of the
machine and never stale.

Nothing here removes old copies: the machine's own cleaning of its temporary folder
does, which goes by the time of their last use, or their owner (the folder's whole
content can be deleted while no run is on). A copy that is gone is made again.
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

LEAST_CAP = 1 << 30  # bytes that any packed file may unpack to
MOST_RATIO = 200  # of unpacked to packed bytes, beyond that
_CHUNK = 1 << 20
_HEAD = 8
_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd", ".bz2")


class _Packing(NamedTuple):
  """A way of packing: its name, and what opens a packed file for reading."""

  name: str
  open: Callable[[io.BufferedIOBase], Any]


def _open_zstd(file: io.BufferedIOBase) -> Any:
  import pyarrow as pa

  return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")


class _Recoded(io.RawIOBase):
  """UTF-16 text as the bytes of UTF-8; what is invalid stays invalid."""

  def __init__(self, file: io.BufferedIOBase, encoding: str):
    self._file = file
    self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")

  def read(self, size: int = -1) -> bytes:
    while True:
      chunk = self._file.read(size)
      text = self._decoder.decode(chunk, final=not chunk)
      if text or not chunk:
        return text.removeprefix("\ufeff").encode("utf-8", "surrogatepass")


_GZIP = _Packing("gzip", lambda file: gzip.GzipFile(fileobj=file))
_BZIP2 = _Packing("bzip2", bz2.BZ2File)
_ZSTD = _Packing("zstd", _open_zstd)
_LITTLE = _Packing("UTF-16", lambda file: _Recoded(file, "utf-16-le"))
_BIG = _Packing("UTF-16", lambda file: _Recoded(file, "utf-16-be"))
_PACKINGS = {
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
# By path: what tells whether the file is still the same, and its plain copy.
_known: dict[str, tuple[Any, str]] = {}


def plain_name(name: str) -> str:
  """A file's name without the suffix of its packing."""
  stem, suffix = os.path.splitext(name)
  if suffix.lower() == ".tgz":
    return f"{stem}.tar"
  return stem if suffix.lower() in _SUFFIXES and stem else name


def open_plain(path: str | os.PathLike) -> io.BufferedIOBase:
  """A file's bytes as `storage.open_binary` gives them, unpacked if it is packed.

  Raises:
    OSError: it cannot be opened.
    InputError: its packing is broken, or it unpacks to more than is allowed.
    RunError: there is no place for the unpacked copy.
  """
  return storage.open_binary(unpack(path))


def unpack(path: str | os.PathLike) -> str:
  """The path of a file's plain copy, or its own if it is not packed.

  Raises:
    As `open_plain`.
  """
  path = os.fspath(path)
  mark = _mark(path)
  if path in _known and _known[path][0] == mark:
    plain = _known[path][1]
    if plain == path or os.path.exists(plain):
      return plain
  plain = path
  if packing := _find_packing(path):
    plain = _find_copy(path, packing)
    # Packed text may be UTF-16. What is packed twice is left to be named.
    if packing.name != "UTF-16" and (inner := _find_packing(plain)):
      plain = _find_copy(plain, inner) if inner.name == "UTF-16" else plain
  _known[path] = mark, plain
  return plain


def _find_packing(path: str) -> _Packing | None:
  with storage.open_binary(path) as file:
    head = file.read(_HEAD)
  return next((p for magic, p in _PACKINGS.items() if head.startswith(magic)), None)


def _mark(path: str) -> Any:
  """What changes when a file does; a bucket is not asked before every read."""
  if storage.is_remote(path):
    return None
  status = os.stat(path)
  return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _find_copy(path: str, packing: _Packing) -> str:
  place = os.path.join(_make_folder(), storage.hash_file(path))
  if os.path.exists(place):
    with contextlib.suppress(OSError):
      os.utime(place)
    return place
  cap = max(LEAST_CAP, MOST_RATIO * storage.measure(path))
  partial = f"{place}.{os.getpid()}-{os.urandom(4).hex()}"
  written = 0
  try:
    with open(partial, "xb") as out:
      for chunk in _read_chunks(path, packing):
        written += len(chunk)
        if written > cap:
          raise InputError(
            f"{path}: unpacks to more than {cap:,} bytes, the most allowed for its"
            f" {storage.measure(path):,} packed ones. If that is right, unpack it and"
            " give the result."
          )
        out.write(chunk)
      out.flush()
      os.fsync(out.fileno())
    os.replace(partial, place)
  except OSError as error:
    raise RunError(
      f"{path}: could not be unpacked to {partial} ({error.strerror or error} after"
      f" {written:,} bytes). Make room there, or set TMPDIR to a folder with room."
    ) from error
  finally:
    with contextlib.suppress(OSError):
      os.unlink(partial)
  return place


def _read_chunks(path: str, packing: _Packing) -> Iterator[bytes]:
  """The unpacked bytes; faults of the packed file are its reader's to name."""
  try:
    with storage.open_binary(path) as file, packing.open(file) as stream:
      while chunk := stream.read(_CHUNK):
        yield chunk
  # gzip, bz2 and pyarrow tell broken data by OSError, EOFError or ValueError.
  except (OSError, EOFError, ValueError, zlib.error) as error:
    detail = (str(error).splitlines() or [type(error).__name__])[0][:200]
    raise InputError(
      f"{path}: its {packing.name} data are broken or cut off ({detail}). Copy the"
      " file again."
    ) from error


def _make_folder() -> str:
  """The folder of plain copies, which nobody else can write to.

  Raises:
    RunError: it cannot be made, or is not its owner's alone.
  """
  folder = os.path.join(
    tempfile.gettempdir(), f"mllm_selector_jax-{os.getuid()}", "unpacked"
  )
  try:
    for place in (os.path.dirname(folder), folder):
      with contextlib.suppress(FileExistsError):
        os.mkdir(place, 0o700)
      status = os.lstat(place)
      if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise RunError(
          f"{place} is not a folder of this user; remove it, or set TMPDIR to another"
          " folder."
        )
      if status.st_mode & 0o077:
        os.chmod(place, 0o700)
  except OSError as error:
    raise RunError(
      f"{folder}: could not be made ({error.strerror or error}); set TMPDIR to a"
      " folder that can be written to."
    ) from error
  return folder
