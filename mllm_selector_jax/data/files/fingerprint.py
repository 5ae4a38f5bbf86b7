"""Computes a cheap identity of a pool from contents and sizes, never file times."""

import hashlib
from collections.abc import Iterator, Sequence

from mllm_selector_jax import storage
from mllm_selector_jax.data import formats
from mllm_selector_jax.data.files import mixture, splits
from mllm_selector_jax.data.formats.pool_file import explain
from mllm_selector_jax.data.images.image_folders import AnyFolders, ImageFolders


def fingerprint(
  data: Sequence[str], images: AnyFolders, wanted_splits: str = splits.DEFAULT
) -> str:
  """Hashes the data files' bytes, and the paths and sizes of the images.

  An image whose bytes change while its size does not leaves the fingerprint as it is.
  The change is found when the image is read, since the pool table holds its hash.

  Args:
    data: the pool's files, as `mixture.expand` takes them.
    images: the folders that image paths are relative to.
    wanted_splits: the splits that are taken from folders.

  Returns:
    64 hexadecimal characters.

  Raises:
    InputError: a data file cannot be read.
  """
  digest = hashlib.sha256()
  for path in mixture.list_files(data, wanted_splits):
    try:
      with storage.open_binary(path) as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
      raise explain(path, error) from error
  folders = ImageFolders.of(images)
  for name in sorted(set(_list_image_names(data, wanted_splits))):
    digest.update(f"{name}\0{folders.measure(name)}\0".encode())
  return digest.hexdigest()


def _list_image_names(data: Sequence[str], wanted_splits: str) -> Iterator[str]:
  for part in mixture.expand(data, wanted_splits):
    yield from formats.open_file(part.file).image_names()
