"""Which rows of a batch each process feeds, and results gathered from all of them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mllm_selector_jax.sharding import put_rows, row_ways
from mllm_selector_jax.types import InputError


def fetch(array: Any) -> np.ndarray:
  """An array whole, as numpy, in every process; all must ask."""
  if not isinstance(array, jax.Array) or array.is_fully_addressable:
    return np.asarray(array)
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(array, tiled=True)


def row_share(mesh: Mesh) -> tuple[int, int]:
  """Which of equal, consecutive shares of a batch's rows this process feeds.

  Returns:
    The share's number, and of how many.

  Raises:
    InputError: the mesh does not give each process rows of its own.
  """
  shards = mesh.devices.reshape(row_ways(mesh), -1)
  owners = [{device.process_index for device in shard} for shard in shards]
  count = jax.process_count()
  wanted = [{shard * count // len(owners)} for shard in range(len(owners))]
  if len(owners) % count or owners != wanted:
    raise InputError(
      f"mesh: data={mesh.shape['data']}, fsdp={mesh.shape['fsdp']},"
      f" tensor={mesh.shape['tensor']} does not give each of the {count} processes"
      " rows of its own; data * fsdp must be a multiple of their number."
    )
  return jax.process_index(), count


def gather_rows(tree: Any, mesh: Mesh) -> Any:
  """Arrays over all rows as numpy, in every process.

  Args:
    tree: leaves are global arrays over the rows, or numpy arrays of this
      process's rows.
    mesh: the devices.
  """
  if jax.process_count() == 1:
    return jax.device_get(tree)
  laid = jax.tree.map(
    lambda x: x if isinstance(x, jax.Array) else put_rows(x, mesh), tree
  )
  return jax.device_get(_make_whole(mesh)(laid))


@functools.lru_cache(maxsize=2)
def _make_whole(mesh: Mesh) -> Callable[[Any], Any]:
  """A jitted copy of everything to every device: one program for a whole tree."""
  return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def sum_later(values: np.ndarray, mesh: Mesh) -> Callable[[], np.ndarray]:
  """Begins to add up a short vector of each process; all must begin.

  Args:
    values: of this process; float32 is kept of them where there are several.
    mesh: the devices.

  Returns:
    A function that waits for the sum and gives it, the same in every process.
  """
  if jax.process_count() == 1:
    return lambda: values
  # On one of this process's rows; the others are zeros.
  rows = np.zeros((row_ways(mesh) // jax.process_count(), len(values)), np.float32)
  rows[0] = values
  total = _make_sum(mesh)(put_rows(rows, mesh))
  return lambda: np.asarray(total)


@functools.lru_cache(maxsize=2)
def _make_sum(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
  whole = NamedSharding(mesh, PartitionSpec())
  return jax.jit(lambda rows: rows.sum(0), out_shardings=whole)
