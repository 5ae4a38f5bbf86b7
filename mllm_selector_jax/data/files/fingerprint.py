"""Computes a cheap identity of a pool from contents and sizes, never file times."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from mllm_selector_jax import storage
from mllm_selector_jax.data import formats
from mllm_selector_jax.data.files import mixture, splits
from mllm_selector_jax.data.files.disk_table import DiskTable
from mllm_selector_jax.data.formats.pool_file import explain, measure
from mllm_selector_jax.data.images.image_folders import AnyFolders, ImageFolders

Progress = Callable[[int, int | None], None]
# Shows the progress of a loop, by its title and the unit of what is counted.
Watch = Callable[[str, str], AbstractContextManager[Progress]]

CHUNK = 1 << 20  # bytes that are read at once
TELL_EVERY = 4096  # names


def _watch_not(title: str, unit: str) -> AbstractContextManager[Progress]:
  return contextlib.nullcontext(lambda done, total: None)


def fingerprint(
  data: Sequence[str],
  images: AnyFolders,
  wanted_splits: str = splits.DEFAULT,
  watch: Watch = _watch_not,
) -> str:
  """Hashes the data files' bytes, and the paths and sizes of the images.

  An image whose bytes change while its size does not leaves the fingerprint as it is.
  The change is found when the image is read, since the pool table holds its hash.

  Args:
    data: the pool's files, as `mixture.expand` takes them.
    images: the folders that image paths are relative to.
    wanted_splits: the splits that are taken from folders.
    watch: shows the progress, since all files are read, and all images looked up.

  Returns:
    64 hexadecimal characters.

  Raises:
    InputError: a data file cannot be read.
  """
  digest = hashlib.sha256()
  for part in _hash_files(list(mixture.list_files(data, wanted_splits)), watch):
    digest.update(part)
  folders = ImageFolders.of(images)
  with (
    contextlib.closing(_find_image_names(data, wanted_splits, watch)) as names,
    watch("check: sizes of the images", "image") as update,
  ):
    total = len(names)
    for done, name in enumerate(names):
      digest.update(f"{name}\0{folders.measure(name)}\0".encode())
      if done % TELL_EVERY == 0:
        update(done, total)
  return digest.hexdigest()


def _hash_files(paths: Sequence[str], watch: Watch) -> Iterator[bytes]:
  """Yields the SHA-256 of each file."""
  total, done = sum(map(measure, paths)), 0
  with watch("check: hash of the files", "byte") as update:
    for path in paths:
      digest = hashlib.sha256()
      try:
        with storage.open_binary(path) as file:
          while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            update(done, total)
      except OSError as error:
        raise explain(path, error) from error
      yield digest.digest()


def _find_image_names(
  data: Sequence[str], wanted_splits: str, watch: Watch
) -> DiskTable:
  """Finds the images that records name and the files do not hold."""
  names = DiskTable()
  count = 0
  with watch("check: names of the images", "name") as update:
    for part in mixture.expand(data, wanted_splits):
      for name in formats.open_file(part.file).image_names():
        names.add(name)
        count += 1
        if count % TELL_EVERY == 0:
          update(count, None)
  return names
