"""Reads each image of a pool once, on threads."""

import concurrent.futures
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mllm_selector_jax.data.files.disk_table import DiskTable
from mllm_selector_jax.data.images.image_folders import (
  MOST_BYTES,
  AnyFolders,
  ImageFolders,
)
from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.types import Picture, RowError

TASK_IMAGES = 16  # that a thread reads in one go


# Of an image: its path, or its row and its number there where it lies inside a pool
# file; None where the record names neither a path nor bytes. Beside it, whether the
# image is prepared as one of several of a row.
_Key = tuple[str | tuple[int, int] | None, bool]


class Finding(NamedTuple):
  """The hashes and the size of an image, or why it cannot be used.

  Attributes:
    hash: SHA-256 of the file's bytes, in hexadecimal.
    size: of the file, in bytes.
    pixels: hash of what the model reads, see `BaseImages.hash_pixels`.
    width, height: as the model's processor sees them, in pixels.
    reason, detail: why it cannot be used; None and "" where it can.
    linked: whether a symbolic link inside the image folder leads to it.
  """

  hash: str | None
  size: int
  pixels: str | None = None
  width: int = 0
  height: int = 0
  reason: str | None = None
  detail: str = ""
  linked: bool = False


def read_picture(picture: Picture, folders: AnyFolders) -> bytes:
  """The bytes of an image's file, wherever it lies.

  Raises:
    RowError: it is not there, or may not be read.
  """
  return _read_picture(picture, ImageFolders.of(folders))[0]


def read_all(pictures: Sequence[Picture], folders: AnyFolders) -> list[bytes]:
  """The bytes of a row's image files.

  Raises:
    RowError: one is not there, or may not be read; it says which.
  """
  data = []
  for number, picture in enumerate(pictures):
    try:
      data.append(read_picture(picture, folders))
    except RowError as error:
      raise error.at_image(number, len(pictures)) from None
  return data


def _read_picture(picture: Picture, folders: ImageFolders) -> tuple[bytes, bool]:
  """The bytes of an image's file, and whether a link leads to it."""
  if picture.data is not None:
    if len(picture.data) > MOST_BYTES:
      raise RowError(
        "huge image", f"{len(picture.data):,} bytes, {MOST_BYTES:,} allowed"
      )
    return picture.data, False
  if picture.name is None:
    raise RowError("missing image", "it has neither bytes nor a path")
  place = folders.find(picture.name)
  return folders.read_place(place, picture.name), place.linked


class Gallery:
  """Reads each image once, and keeps its hashes and size.

  Images of the folders are known by their path, those inside pool files by their
  bytes.

  Args:
    folders: that hold the images which are files of their own.
    images: how the base's images become pixels.
    max_pixels: larger images are refused.
    workers: threads.
  """

  def __init__(
    self, folders: AnyFolders, images: BaseImages, max_pixels: int, workers: int
  ):
    self._folders = ImageFolders.of(folders)
    self._images = images
    self._max_pixels = max_pixels
    self._pool = concurrent.futures.ThreadPoolExecutor(max(1, workers))
    self._known = DiskTable()  # findings, by the keys of images of the folders
    self._inside = DiskTable()  # by the hashes of images inside pool files
    self._requested: dict[_Key, concurrent.futures.Future] = {}

  def __enter__(self) -> "Gallery":
    return self

  def __exit__(self, *_) -> None:
    self._pool.shutdown(cancel_futures=True)
    self._known.close()
    self._inside.close()

  def request(self, rows: Iterable[tuple[int, Sequence[Picture]]]) -> None:
    """Begins to look at rows' images, given with the row's number."""
    new: dict[_Key, Picture] = {}
    for row, pictures in rows:
      for key, picture in self._list_keys(row, pictures):
        if key not in self._requested and repr(key) not in self._known:
          new[key] = picture
    items = list(new.items())
    for start in range(0, len(items), TASK_IMAGES):
      task = dict(items[start : start + TASK_IMAGES])
      future = self._pool.submit(self._look_at, task)
      self._requested.update(dict.fromkeys(task, future))

  def get(self, row: int, pictures: Sequence[Picture]) -> list[Finding]:
    """Waits for the findings of a row's images, and returns them once."""
    findings = []
    for key, picture in self._list_keys(row, pictures):
      if picture.data is not None:
        findings.append(self._requested.pop(key).result()[key])
        continue
      if future := self._requested.pop(key, None):
        findings.append(future.result()[key])
        self._known.add(repr(key), _as_text(findings[-1]))
      else:
        known = self._known.get(repr(key))
        assert known is not None, "an image that is asked for was requested before"
        findings.append(_from_text(known))
    return findings

  def _list_keys(
    self, row: int, pictures: Sequence[Picture]
  ) -> Iterator[tuple[_Key, Picture]]:
    several = self._images.is_several(len(pictures))
    for number, picture in enumerate(pictures):
      place = picture.name if picture.data is None else (row, number)
      yield (place, several), picture

  def _look_at(self, pictures: dict[_Key, Picture]) -> dict[_Key, Finding]:
    return {key: self._look_at_one(key[1], item) for key, item in pictures.items()}

  def _look_at_one(self, several: bool, picture: Picture) -> Finding:
    inside = picture.data is not None
    try:
      data, linked = _read_picture(picture, self._folders)
      digest = hashlib.sha256(data).hexdigest()
      content = repr((digest, several))
      if inside and (known := self._inside.get(content)):
        return _from_text(known)
      image = self._images.decode(data, self._max_pixels)
    except RowError as error:
      return Finding(None, 0, reason=error.reason, detail=error.detail)
    pixels = self._images.hash_pixels(image, 1 + several)
    finding = Finding(digest, len(data), pixels, *image.size, linked=linked)
    if inside:
      self._inside.add(content, _as_text(finding))
    return finding


def _as_text(finding: Finding) -> str:
  return json.dumps(finding)


def _from_text(text: str) -> Finding:
  return Finding(*json.loads(text))
