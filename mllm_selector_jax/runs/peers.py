"""What the processes of a run tell each other; a process alone needs no jax for it."""

import contextlib
import itertools
import sys
import time
from typing import Any

import numpy as np

LONGEST = 7 * 24 * 3600  # seconds; a process that is gone is noticed long before
_LONGER = 0.3  # seconds

_exchanges = itertools.count()
_PUBLISHED = "mllm_selector_jax/published"


def is_first_process() -> bool:
  """Whether this is the process that writes what belongs to all."""
  return place()[0] == 0


def are_joined() -> bool:
  """Whether this process is one of several, which jax has joined."""
  # Whatever joined them has imported jax, so that a process without it is alone.
  jax = sys.modules.get("jax")
  return jax is not None and jax.distributed.is_initialized()


def place() -> tuple[int, int]:
  """Number of this process, and how many there are; asks for no devices."""
  if not are_joined():
    return 0, 1
  state = _get_state()
  return state.process_id, state.num_processes


def _get_state() -> Any:
  """Jax's state of the joined processes, whose store of texts has no public name."""
  from jax._src import distributed

  return distributed.global_state


def exchange(text: str) -> list[str]:
  """Every process's text, by its number; all must ask, in the same order.

  It goes through the coordinator, without devices and programs, so that processes
  whose programs or numbers of devices differ can still tell each other so.
  """
  number, count = place()
  if count == 1:
    return [text]
  client = _get_state().client
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
    _get_state().client.key_value_set(_PUBLISHED, text)


def published() -> str | None:
  """The text that a process left; None if there is none."""
  try:
    return _get_state().client.key_value_try_get(_PUBLISHED)
  except RuntimeError:  # not found
    return None


def end_together(seconds: float) -> None:
  """Waits until all processes are about to end, for so many seconds at most.

  The first one, which the others are connected to, then stays a moment longer.
  """
  client = _get_state().client
  with contextlib.suppress(RuntimeError):  # another one does not come, or is gone
    client.wait_at_barrier("mllm_selector_jax/end", int(seconds * 1000))
    if is_first_process():
      time.sleep(_LONGER)


def meet(name: str) -> None:
  """Waits until every process is here."""
  if are_joined():
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def agree(value: Any) -> np.ndarray:
  """The first process's value, in every process."""
  if place()[1] == 1:
    return np.asarray(value)
  from jax.experimental import multihost_utils

  return multihost_utils.broadcast_one_to_all(np.asarray(value))


def any_process(value: bool) -> bool:
  """Whether it is true in any process; all must ask."""
  if place()[1] == 1:
    return value
  from jax.experimental import multihost_utils

  return bool(np.any(multihost_utils.process_allgather(np.array([value]))))


def gather_text(text: str) -> list[str]:
  """Every process's text, in every process; all must ask."""
  if place()[1] == 1:
    return [text]
  from jax.experimental import multihost_utils

  own = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.array(len(own))).reshape(-1)
  padded = np.pad(own, (0, int(sizes.max(initial=1)) - len(own)))
  every = multihost_utils.process_allgather(padded)
  return [row[:size].tobytes().decode() for row, size in zip(every, sizes, strict=True)]
