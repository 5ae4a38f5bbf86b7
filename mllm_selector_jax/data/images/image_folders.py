"""Finds an image by the path that a record gives, and never outside the folders.

A path is relative to one of the folders, or absolute (also as a `file://` URL) and
below one of them. What lies elsewhere, a URL that would have to be fetched and what is
no regular file are refused.
"""

import dataclasses
import errno
import functools
import os
import re
import stat
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mllm_selector_jax import storage
from mllm_selector_jax.types import RowError

MOST_BYTES = 1 << 28  # of a file
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|data:")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")  # Windows' absolute paths
_SHOWN = 200  # characters of a path in a message


class Place(NamedTuple):
  """Where an image is.

  Attributes:
    path: of the file.
    folder: the image folder that holds it.
    linked: whether a symbolic link inside that folder leads there.
  """

  path: str
  folder: str
  linked: bool = False


@dataclasses.dataclass(frozen=True)
class ImageFolders:
  """The folders that hold a pool's images.

  Attributes:
    folders: in the order in which a relative path is looked up.
    links: whether symbolic links may lead out of the folders, as they do where
      images lie on several disks or in a hub's cache.
  """

  folders: tuple[str, ...] = ()
  links: bool = True

  @classmethod
  def of(cls, value: "AnyFolders", links: bool = True) -> "ImageFolders":
    """From one folder, several or none."""
    if isinstance(value, ImageFolders):
      return value
    if value is None:
      return cls((), links)
    if isinstance(value, str | os.PathLike):
      value = (value,)
    return cls(tuple(os.fspath(each) for each in value if each), links)

  def __bool__(self) -> bool:
    return bool(self.folders)

  def find(self, name: str) -> Place:
    """Finds the file of the image with this name.

    Raises:
      RowError: "unsafe path" or "missing image".
    """
    if not name:
      raise RowError("missing image", "the path is empty")
    if not self.folders:
      raise RowError("missing image", "no image folder is given")
    place = self._locate(name)
    if storage.is_remote(place.folder):
      return place
    try:
      self._check_regular(place.path, name)
      real = os.path.realpath(place.path)
    except OSError as error:
      raise _explain(name, error) from error
    inside = place.path[len(place.folder.rstrip("/")) :]
    linked = real != self._real[place.folder].rstrip("/") + inside
    if linked and not self.links and not _is_below(real, self._real.values()):
      raise RowError("unsafe path", f"{name[:_SHOWN]} links out of the image folders")
    return place._replace(linked=linked)

  def read(self, name: str) -> bytes:
    """The bytes of the image of this name.

    Raises:
      RowError: "unsafe path", "missing image", "unreadable image" or "huge image".
    """
    return self.read_place(self.find(name), name)

  def read_place(self, place: Place, name: str) -> bytes:
    """The bytes of an image that was found; `name` is for messages."""
    if storage.is_remote(place.folder):
      return _read_remote(place.path, name)
    try:
      # A FIFO put there in the meantime must not block.
      descriptor = os.open(place.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
      with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
          raise RowError("unsafe path", f"{name[:_SHOWN]} is not a regular file")
        _check_size(status.st_size)
        return file.read()
    except OSError as error:
      raise _explain(name, error) from error

  def measure(self, name: str) -> int:
    """Bytes of the file; -1 if there is none, or none that may be looked at."""
    try:
      return storage.measure(self._locate(name).path) if name else -1
    except (OSError, RowError):
      return -1

  def _locate(self, name: str) -> Place:
    """Returns the file that a name stands for."""
    path = _as_path(name, self.folders)
    if os.path.isabs(path) or storage.is_remote(path):
      for base in self._real:
        if _is_below(path, (base,)):
          return Place(path, base)
      raise RowError(
        "unsafe path", f"{name[:_SHOWN]} is absolute, and in none of the image folders"
      )
    inside = None
    for root in self._roots:
      place = f"{root.rstrip('/')}/{path}" if storage.is_remote(root) else None
      place = place or os.path.normpath(os.path.join(root, path))
      if not storage.is_remote(root) and not _is_below(place, self._roots):
        continue
      inside = Place(place, next(r for r in self._roots if _is_below(place, (r,))))
      if len(self.folders) == 1 or _is_there(place):
        return inside
    if inside is None:
      raise RowError("unsafe path", f"{name[:_SHOWN]!r} leaves the image folders")
    return inside

  def _check_regular(self, path: str, name: str) -> None:
    if not stat.S_ISREG(os.stat(path).st_mode):
      raise RowError("unsafe path", f"{name[:_SHOWN]} is not a regular file")

  @functools.cached_property
  def _roots(self) -> tuple[str, ...]:
    return tuple(
      folder if storage.is_remote(folder) else os.path.abspath(folder)
      for folder in self.folders
    )

  @functools.cached_property
  def _real(self) -> dict[str, str]:
    """Maps each folder, and its path without links, to its path without links."""
    real = {root: _resolve(root) for root in self._roots}
    return {**{root: root for root in real.values()}, **real}


AnyFolders = str | os.PathLike | Sequence[str | os.PathLike] | ImageFolders | None


def _as_path(name: str, folders: Sequence[str]) -> str:
  """A name as a path, normalised; what only a fetch would give is refused."""
  if "\0" in name:
    raise RowError("unsafe path", f"{name[:_SHOWN]!r} holds a NUL character")
  if name.lower().startswith("file://"):
    parts = urllib.parse.urlsplit(name)
    if parts.netloc not in ("", "localhost"):
      raise RowError("unsafe path", f"{name[:_SHOWN]} is a file of another host")
    name = urllib.parse.unquote(parts.path)
    return os.path.normpath(name)
  if _URL.match(name):
    if storage.is_remote(name) and any(map(storage.is_remote, folders)):
      return name
    raise RowError("unsafe path", f"{name[:_SHOWN]} is a URL, which is never fetched")
  if _DRIVE.match(name):
    raise RowError("unsafe path", f"{name[:_SHOWN]} is an absolute path of Windows")
  if ".." in name.replace("\\", "/").split("/"):
    if "\\" in name:
      raise RowError("unsafe path", f"{name[:_SHOWN]!r} may leave the image folders")
    return os.path.normpath(name)
  return os.path.normpath(name) if os.path.isabs(name) else name


def _resolve(folder: str) -> str:
  return folder if storage.is_remote(folder) else os.path.realpath(folder)


def _is_below(path: str, folders: Iterable[str]) -> bool:
  return any(path.startswith(f"{folder.rstrip('/')}/") for folder in folders)


def _is_there(path: str) -> bool:
  return storage.is_file(path) if storage.is_remote(path) else os.path.lexists(path)


def _check_size(size: int) -> None:
  if size > MOST_BYTES:
    raise RowError("huge image", f"{size:,} bytes, {MOST_BYTES:,} allowed")


def _read_remote(path: str, name: str) -> bytes:
  """The bytes of a file in a bucket, where there are no links and no devices."""
  try:
    _check_size(storage.measure(path))
    with storage.open_binary(path) as file:
      return file.read()
  except FileNotFoundError as error:
    raise RowError("missing image", f"{name[:_SHOWN]} is not there") from error
  except OSError as error:
    raise RowError("unreadable image", f"{name[:_SHOWN]}: {error}"[:300]) from error


def _explain(name: str, error: OSError) -> RowError:
  """The fault of an image's file that could not be opened."""
  if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
    return RowError("missing image", f"{name[:_SHOWN]} is not there")
  detail = f"{name[:_SHOWN]}: {error.strerror}"
  if error.errno == errno.ELOOP:
    return RowError("unsafe path", detail)
  return RowError("unreadable image", detail)
