"""Looks at the images of a pool: each once, on threads."""

import concurrent.futures
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mllm_selector_jax.data.images import decoding
from mllm_selector_jax.data.images.image_folders import (
  MOST_BYTES,
  AnyFolders,
  ImageFolders,
)
from mllm_selector_jax.data.images.image_forms import square_form
from mllm_selector_jax.types import ImageOptions, Picture, RowError

TASK_IMAGES = 16  # that a thread reads in one go


# Of an image: its path, or its row where it lies inside a pool file; None where the
# record names neither a path nor bytes.
_Key = str | int | None


class Finding(NamedTuple):
  """What is kept of an image: its hashes and size, or why it cannot be used.

  Attributes:
    hash: SHA-256 of the file's bytes, in hexadecimal.
    size: of the file, in bytes.
    pixels: hash of the square of pixels that the model reads.
    reason, detail: why it cannot be used; None and "" where it can.
    linked: whether a symbolic link inside the image folder leads to it.
  """

  hash: str | None
  size: int
  pixels: str | None = None
  reason: str | None = None
  detail: str = ""
  linked: bool = False


def read_picture(picture: Picture, folders: AnyFolders) -> bytes:
  """The bytes of an image's file, wherever it lies.

  Raises:
    RowError: it is not there, or may not be read.
  """
  return _read_picture(picture, ImageFolders.of(folders))[0]


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
  """Reads each image once, and remembers the little that is needed.

  Images of the folders are known by their path, those inside pool files by their
  bytes.

  Args:
    folders: that hold the images which are files of their own.
    options: how pixels are prepared.
    max_pixels: larger images are refused.
    workers: threads.
  """

  def __init__(
    self, folders: AnyFolders, options: ImageOptions, max_pixels: int, workers: int
  ):
    self._folders = ImageFolders.of(folders)
    self._options = options
    self._max_pixels = max_pixels
    self._pool = concurrent.futures.ThreadPoolExecutor(max(1, workers))
    self._known: dict[str | None, Finding] = {}  # by path
    self._inside: dict[str, Finding] = {}  # by hash
    self._requested: dict[_Key, concurrent.futures.Future] = {}

  def __enter__(self) -> "Gallery":
    return self

  def __exit__(self, *_) -> None:
    self._pool.shutdown(cancel_futures=True)

  def request(self, pictures: Iterable[tuple[int, Picture]]) -> None:
    """Begins to look at rows' images, given with the row's number."""
    new: dict[_Key, Picture] = {}
    for row, picture in pictures:
      key = row if picture.data is not None else picture.name
      if key not in self._known and key not in self._requested:
        new[key] = picture
    items = list(new.items())
    for start in range(0, len(items), TASK_IMAGES):
      some = dict(items[start : start + TASK_IMAGES])
      future = self._pool.submit(self._look_at, some)
      self._requested.update(dict.fromkeys(some, future))

  def get(self, row: int, picture: Picture) -> Finding:
    """What was found of a row's image, once; waits for it."""
    if picture.data is not None:
      return self._requested.pop(row).result()[row]
    if future := self._requested.pop(picture.name, None):
      self._known[picture.name] = future.result()[picture.name]
    return self._known[picture.name]

  def _look_at(self, pictures: dict[_Key, Picture]) -> dict[_Key, Finding]:
    return {key: self._look_at_one(picture) for key, picture in pictures.items()}

  def _look_at_one(self, picture: Picture) -> Finding:
    try:
      data, linked = _read_picture(picture, self._folders)
      digest = hashlib.sha256(data).hexdigest()
      inside = picture.data is not None
      if inside and (known := self._inside.get(digest)):
        return known
      image = decoding.decode_image(data, self._max_pixels)
    except RowError as error:
      return Finding(None, 0, None, error.reason, error.detail)
    pixels = np.ascontiguousarray(square_form.to_pixels(image, self._options))
    hashed = hashlib.blake2b(pixels.data, digest_size=16).hexdigest()
    found = Finding(digest, len(data), hashed, linked=linked)
    if inside:
      self._inside[digest] = found
    return found
