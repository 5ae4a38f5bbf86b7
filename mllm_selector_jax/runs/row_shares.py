"""The rows of a batch that each process feeds, and arrays gathered from all processes.

All processes must call these functions together and in the same order, except for
`row_share`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mllm_selector_jax.sharding import put_rows, row_ways
from mllm_selector_jax.types import InputError


def fetch(array: Any) -> np.ndarray:
  """Returns a global array as a complete numpy array, in every process."""
  if not isinstance(array, jax.Array) or array.is_fully_addressable:
    return np.asarray(array)
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(array, tiled=True)


def row_share(mesh: Mesh) -> tuple[int, int]:
  """Returns the share of a batch's rows that this process feeds.

  The rows are divided into equal, consecutive shares, one for each process.

  Returns:
    The number of this process's share, and the number of shares.

  Raises:
    InputError: the mesh does not give each process rows of its own.
  """
  shards = mesh.devices.reshape(row_ways(mesh), -1)
  owners = [{device.process_index for device in shard} for shard in shards]
  count = jax.process_count()
  expected = [{shard * count // len(owners)} for shard in range(len(owners))]
  if len(owners) % count or owners != expected:
    raise InputError(
      f"mesh: data={mesh.shape['data']}, fsdp={mesh.shape['fsdp']},"
      f" tensor={mesh.shape['tensor']} does not give each of the {count} processes"
      " rows of its own; data * fsdp must be a multiple of their number."
    )
  return jax.process_index(), count


def gather_rows(tree: Any, mesh: Mesh) -> Any:
  """Gathers arrays over the rows of a batch to numpy, in every process.

  Args:
    tree: a tree of global arrays with leading axis B, or of numpy arrays over the rows
      of this process.
    mesh: the mesh.

  Returns:
    The same tree of numpy arrays with leading axis B.
  """
  if jax.process_count() == 1:
    return jax.device_get(tree)
  global_tree = jax.tree.map(
    lambda x: x if isinstance(x, jax.Array) else put_rows(x, mesh), tree
  )
  return jax.device_get(_make_replicate(mesh)(global_tree))


@functools.lru_cache(maxsize=2)
def _make_replicate(mesh: Mesh) -> Callable[[Any], Any]:
  """Makes one jitted program that replicates a whole tree to every device."""
  return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def sum_later(values: np.ndarray, mesh: Mesh) -> Callable[[], np.ndarray]:
  """Begins to sum short vectors over the processes.

  Args:
    values: the vector of this process, of any length. It is summed in float32 if there
      are several processes.
    mesh: the mesh.

  Returns:
    A function that waits for the sum and returns it, the same in every process.
  """
  if jax.process_count() == 1:
    return lambda: values
  # The vector is one of this process's rows; its other rows are zeros.
  rows = np.zeros((row_ways(mesh) // jax.process_count(), len(values)), np.float32)
  rows[0] = values
  total = _make_sum(mesh)(put_rows(rows, mesh))
  return lambda: np.asarray(total)


@functools.lru_cache(maxsize=2)
def _make_sum(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
  replicated = NamedSharding(mesh, PartitionSpec())
  return jax.jit(lambda rows: rows.sum(0), out_shardings=replicated)
