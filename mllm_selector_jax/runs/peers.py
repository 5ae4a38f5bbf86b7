"""Communication between the processes of a run; a single process needs no jax for it.

All processes must call these functions together and in the same order, except for
`is_first_process`, `are_joined`, `number_and_count`, `publish` and `published`.
"""

import contextlib
import itertools
import sys
import time
from typing import Any

import numpy as np

# Seconds that `exchange` waits at most. A process that is gone is noticed long before.
LONGEST = 7 * 24 * 3600
# Seconds that the first process stays when all end: at most, until the others have said
# that they go, and then, until they are gone.
_STAYING, _LONGER = 5.0, 0.3

_LOOKING = 0.05  # seconds between two looks whether the others go

_exchanges = itertools.count()
_PUBLISHED = "mllm_selector_jax/published"
_GOING = "mllm_selector_jax/going/"


def is_first_process() -> bool:
  """Returns whether this is the process that writes the shared files."""
  return number_and_count()[0] == 0


def are_joined() -> bool:
  """Returns whether this process is one of several, which jax has joined."""
  # Whatever joined them has imported jax, so that a process without jax is alone.
  jax = sys.modules.get("jax")
  return jax is not None and jax.distributed.is_initialized()


def number_and_count() -> tuple[int, int]:
  """Returns the number of this process, and the number of processes.

  Unlike `jax.process_index`, this does not initialise devices.
  """
  if not are_joined():
    return 0, 1
  state = _get_state()
  return state.process_id, state.num_processes


def _get_state() -> Any:
  """Returns the state that jax keeps of the joined processes."""
  from jax._src import distributed  # the store of texts has no public name

  return distributed.global_state


def exchange(text: str) -> list[str]:
  """Returns the texts of all processes, in the order of their numbers.

  The texts go through the coordinator, without devices and programs, so that processes
  with different programs or numbers of devices can still report this to each other.
  """
  number, count = number_and_count()
  if count == 1:
    return [text]
  client = _get_state().client
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
    _get_state().client.key_value_set(_PUBLISHED, text)


def published() -> str | None:
  """Returns the text that a process has published; None if there is none."""
  try:
    return _get_state().client.key_value_try_get(_PUBLISHED)
  except RuntimeError:  # not found
    return None


def end_together(seconds: float) -> None:
  """Waits until all processes are about to end, for at most this many seconds.

  The first process, which the others are connected to, then stays until they have gone:
  a busy machine may let one of them learn late that all are there.
  """
  number, count = number_and_count()
  client = _get_state().client
  with contextlib.suppress(RuntimeError):  # another process is late, or is gone
    client.wait_at_barrier("mllm_selector_jax/end", int(seconds * 1000))
    if number:
      client.key_value_set(f"{_GOING}{number}", "")
      return
    deadline = time.monotonic() + _STAYING
    while time.monotonic() < deadline:
      if len(client.key_value_dir_get(_GOING)) == count - 1:
        break
      time.sleep(_LOOKING)
    time.sleep(_LONGER)


def meet(name: str) -> None:
  """Waits until every process has made this call."""
  if are_joined():
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def agree(value: Any) -> np.ndarray:
  """Returns the value of the first process, in every process."""
  if number_and_count()[1] == 1:
    return np.asarray(value)
  from jax.experimental import multihost_utils

  return multihost_utils.broadcast_one_to_all(np.asarray(value))


def any_process(value: bool) -> bool:
  """Returns whether the value is true in any process."""
  if number_and_count()[1] == 1:
    return value
  from jax.experimental import multihost_utils

  return bool(np.any(multihost_utils.process_allgather(np.array([value]))))


def gather_text(text: str) -> list[str]:
  """Returns the texts of all processes, in every process; uses the devices."""
  if number_and_count()[1] == 1:
    return [text]
  from jax.experimental import multihost_utils

  data = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array(len(data))).reshape(-1)
  padded = np.pad(data, (0, int(sizes.max(initial=1)) - len(data)))
  rows = multihost_utils.process_allgather(padded)
  return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]
