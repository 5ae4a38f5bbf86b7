"""Maps the embeddings beside a score table, which another run may have made."""

from pathlib import Path

import numpy as np

from mllm_selector_jax.types import InputError


def map_stored(folder: Path) -> list[np.ndarray]:
  """Map the parts of a score table's embeddings, each of shape (lines, width)."""
  paths = sorted((folder / "embeddings").glob("part-*.npy"))
  return [_map_array(path) for path in paths]


def map_array(path: Path) -> np.ndarray:
  """Map the array of a .npy file, without a descriptor that stays open.

  numpy's own maps keep one each, of which a process may often have no more than 1,024.
  """
  import pyarrow as pa

  array = np.load(path, mmap_mode="r", allow_pickle=False)
  if not array.size:
    return np.array(array)
  with pa.memory_map(str(path)) as file:
    content = file.read_buffer()  # which stays mapped
  flat = np.frombuffer(content, array.dtype, array.size, array.offset)
  return flat.reshape(array.shape, order="C" if array.flags.c_contiguous else "F")


def _map_array(path: Path) -> np.ndarray:
  """Map the embeddings of one part; nothing that is pickled is read.

  Raises:
    InputError: The file is damaged.
  """
  try:
    array = map_array(path)
  # numpy parses the header as Python's text of a dict, which raises almost anything.
  except Exception as error:
    raise InputError(
      f"{path} is damaged ({type(error).__name__}), or holds no array. Copy it again."
    ) from error
  if array.ndim != 2 or array.dtype.kind != "f":
    raise InputError(
      f"{path} holds an array of {array.dtype} with {array.ndim} axes, and not one of"
      " embeddings: numbers with two axes."
    )
  return array
