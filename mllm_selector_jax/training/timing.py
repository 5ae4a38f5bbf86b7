"""When a training step was done, noted while the loop does other things."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Span(NamedTuple):
  """How long a step took; see `measure`.

  Attributes:
    seconds: from the end of the step before, or from asking for this step's batch if
      that was later.
    waited: of them, until the batch was there.
    end: when the step was done, a reading of `time.perf_counter`.
  """

  seconds: float
  waited: float
  end: float


def note_end(values: Any) -> Callable[[], float]:
  """Waits for arrays in a thread of its own.

  A step's results are read late, so that the devices stay busy, and a backend may
  run the next step before its dispatch returns. The time of reading therefore says
  nothing about when a step was done.

  Args:
    values: what the step will give.

  Returns:
    A function that waits until they are there and gives the time at which they
    were, a reading of `time.perf_counter`.
  """
  ends: list[float] = []

  def wait():
    # An error of the step is raised to whoever reads its values.
    with contextlib.suppress(Exception):
      jax.block_until_ready(values)
    ends.append(time.perf_counter())

  # Not a daemon: the interpreter must not end while a thread is inside the runtime.
  thread = threading.Thread(target=wait)
  thread.start()

  def read_end() -> float:
    thread.join()
    return ends[0]

  return read_end


def measure(before: float, asked: float, ready: float, end: float) -> Span:
  """The time of one step.

  Steps overlap with reading the next batch, so only what the devices had to wait
  for counts. What lies between two steps, such as saving a checkpoint, belongs to
  neither.

  Args:
    before: when the step before was done; minus infinity for the first one.
    asked, ready: when its batch was asked for, and was there.
    end: when it was done.
  """
  start = max(before, asked)
  return Span(end - start, max(0.0, ready - start), end)
