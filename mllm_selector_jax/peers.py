"""What the processes of a run tell each other, and which rows each of them feeds."""

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

LONGEST = 7 * 24 * 3600  # seconds; a process that is gone is noticed long before
_LONGER = 0.3  # seconds

_exchanges = itertools.count()
_PUBLISHED = "mllm_selector_jax/published"


def is_first_process() -> bool:
  """Whether this is the process that writes what belongs to all."""
  return place()[0] == 0


def place() -> tuple[int, int]:
  """Number of this process, and how many there are; asks for no devices."""
  if not jax.distributed.is_initialized():
    return 0, 1
  state = distributed.global_state
  return state.process_id, state.num_processes


def exchange(text: str) -> list[str]:
  """Every process's text, by its number; all must ask, in the same order.

  It goes through the coordinator, without devices and programs, so that processes
  whose programs or numbers of devices differ can still tell each other so.
  """
  number, count = place()
  if count == 1:
    return [text]
  client = distributed.global_state.client
  topic = f"mllm_selector_jax/exchange/{next(_exchanges)}/"
  client.key_value_set(f"{topic}{number}", text)
  client.wait_at_barrier(f"{topic}all", LONGEST * 1000)
  told = client.key_value_dir_get(topic)
  # Those that are there: a process may have been told another number of them.
  return [
    text for _, text in sorted((int(key.split("/")[-1]), text) for key, text in told)
  ]


def publish(text: str) -> None:
  """Leaves a text for all processes, for `published`; only the first one counts."""
  with contextlib.suppress(RuntimeError):  # there is one, or nobody to tell
    distributed.global_state.client.key_value_set(_PUBLISHED, text)


def published() -> str | None:
  """The text that a process left; None if there is none."""
  try:
    return distributed.global_state.client.key_value_try_get(_PUBLISHED)
  except RuntimeError:  # not found
    return None


def end_together(seconds: float) -> None:
  """Waits until all processes are about to end, for so many seconds at most.

  The first one, which the others are connected to, then stays a moment longer.
  """
  client = distributed.global_state.client
  with contextlib.suppress(RuntimeError):  # another one does not come, or is gone
    client.wait_at_barrier("mllm_selector_jax/end", int(seconds * 1000))
    if is_first_process():
      time.sleep(_LONGER)


def meet(name: str) -> None:
  """Waits until every process is here."""
  if jax.distributed.is_initialized():
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def agree(value: Any) -> np.ndarray:
  """The first process's value, in every process."""
  if jax.process_count() == 1:
    return np.asarray(value)
  from jax.experimental import multihost_utils

  return multihost_utils.broadcast_one_to_all(np.asarray(value))


def any_process(value: bool) -> bool:
  """Whether it is true in any process; all must ask."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return bool(np.any(multihost_utils.process_allgather(np.array([value]))))


def gather_text(text: str) -> list[str]:
  """Every process's text, in every process; all must ask."""
  if jax.process_count() == 1:
    return [text]
  from jax.experimental import multihost_utils

  own = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array(len(own))).reshape(-1)
  padded = np.pad(own, (0, int(sizes.max(initial=1)) - len(own)))
  every = multihost_utils.process_allgather(padded)
  return [row[:size].tobytes().decode() for row, size in zip(every, sizes, strict=True)]


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
