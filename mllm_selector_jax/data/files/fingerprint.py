"""A cheap identity of a pool's files: by content and size, never by file time."""

import hashlib
from collections.abc import Iterator, Sequence

from mllm_selector_jax import storage
from mllm_selector_jax.data import formats
from mllm_selector_jax.data.files import mixture, splits
from mllm_selector_jax.data.formats.pool_file import explain
from mllm_selector_jax.data.images.image_folders import AnyFolders, ImageFolders


def fingerprint(
  data: Sequence[str], images: AnyFolders, wanted: str = splits.DEFAULT
) -> str:
  """Identity of the data files' bytes and of the images' paths and sizes.

  An image whose bytes changed while its size did not is found when it is read
  again: the table holds its hash.

  Args:
    data: the pool's files, as `mixture.expand` takes them.
    images: folders of the image paths.
    wanted: the splits that are taken of folders.

  Returns:
    64 hexadecimal characters.

  Raises:
    InputError: a data file cannot be read.
  """
  digest = hashlib.sha256()
  for path in mixture.list_files(data, wanted):
    try:
      with storage.open_binary(path) as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
      raise explain(path, error) from error
  folders = ImageFolders.of(images)
  for name in sorted(set(_names(data, wanted))):
    digest.update(f"{name}\0{folders.measure(name)}\0".encode())
  return digest.hexdigest()


def _names(data: Sequence[str], wanted: str) -> Iterator[str]:
  for part in mixture.expand(data, wanted):
    yield from formats.open_file(part.file).image_names()
