"""Communication between the processes of a run, and the rows that each of them feeds.

All processes must call these functions together and in the same order, except for
`is_first_process`, `number_and_count`, `publish`, `published` and `row_share`.
"""

import contextlib
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the store of texts has no public name
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mllm_selector_jax.sharding import put_rows, row_ways
from mllm_selector_jax.types import InputError

# Seconds that `exchange` waits at most. A process that is gone is noticed long before.
LONGEST = 7 * 24 * 3600
_LONGER = 0.3  # seconds that the first process stays after the others, when all end

_exchanges = itertools.count()
_PUBLISHED = "mllm_selector_jax/published"


def is_first_process() -> bool:
  """Returns whether this is the process that writes the shared files."""
  return number_and_count()[0] == 0


def number_and_count() -> tuple[int, int]:
  """Returns the number of this process, and the number of processes.

  Unlike `jax.process_index`, this does not initialise devices.
  """
  if not jax.distributed.is_initialized():
    return 0, 1
  state = distributed.global_state
  return state.process_id, state.num_processes


def exchange(text: str) -> list[str]:
  """Returns the texts of all processes, in the order of their numbers.

  The texts go through the coordinator, without devices and programs, so that processes
  with different programs or numbers of devices can still report this to each other.
  """
  number, count = number_and_count()
  if count == 1:
    return [text]
  client = distributed.global_state.client
  topic = f"mllm_selector_jax/exchange/{next(_exchanges)}/"
  client.key_value_set(f"{topic}{number}", text)
  client.wait_at_barrier(f"{topic}all", LONGEST * 1000)
  entries = client.key_value_dir_get(topic)
  # Sorted by number, and not counted: processes may disagree about their number.
  return [
    text for _, text in sorted((int(key.split("/")[-1]), text) for key, text in entries)
  ]


def publish(text: str) -> None:
  """Leaves a text for all processes, which `published` returns; the first one wins."""
  with contextlib.suppress(RuntimeError):  # there is a text, or the coordinator is gone
    distributed.global_state.client.key_value_set(_PUBLISHED, text)


def published() -> str | None:
  """Returns the text that a process has published; None if there is none."""
  try:
    return distributed.global_state.client.key_value_try_get(_PUBLISHED)
  except RuntimeError:  # not found
    return None


def end_together(seconds: float) -> None:
  """Waits until all processes are about to end, for at most this many seconds.

  The first process, which the others are connected to, then stays a moment longer.
  """
  client = distributed.global_state.client
  with contextlib.suppress(RuntimeError):  # another process is late, or is gone
    client.wait_at_barrier("mllm_selector_jax/end", int(seconds * 1000))
    if is_first_process():
      time.sleep(_LONGER)


def meet(name: str) -> None:
  """Waits until every process has made this call."""
  if jax.distributed.is_initialized():
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def agree(value: Any) -> np.ndarray:
  """Returns the value of the first process, in every process."""
  if jax.process_count() == 1:
    return np.asarray(value)
  from jax.experimental import multihost_utils

  return multihost_utils.broadcast_one_to_all(np.asarray(value))


def any_process(value: bool) -> bool:
  """Returns whether the value is true in any process."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return bool(np.any(multihost_utils.process_allgather(np.array([value]))))


def gather_text(text: str) -> list[str]:
  """Returns the texts of all processes, in every process; uses the devices."""
  if jax.process_count() == 1:
    return [text]
  from jax.experimental import multihost_utils

  data = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array(len(data))).reshape(-1)
  padded = np.pad(data, (0, int(sizes.max(initial=1)) - len(data)))
  rows = multihost_utils.process_allgather(padded)
  return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


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
