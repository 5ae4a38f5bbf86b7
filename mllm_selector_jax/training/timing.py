"""Measures when a training step ended, without blocking the training loop."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Span(NamedTuple):
  """The time of a step; see `measure`.

  Attributes:
    seconds: the seconds from the end of the step before, or from the request of this
      step's batch if that was later.
    waited: the part of `seconds` before the batch was there.
    end: the end of the step, by `time.perf_counter`.
  """

  seconds: float
  waited: float
  end: float


def note_end(values: Any) -> Callable[[], float]:
  """Waits for arrays in a separate thread, and notes when they are there.

  The results of a step are read late, so that the devices stay busy, and a backend may
  run the next step before its dispatch returns. When the results are read is therefore
  no measure of when the step ended.

  Args:
    values: the results of the step, which may still be computed.

  Returns:
    A function that waits for the arrays, and returns the time at which they were there,
    by `time.perf_counter`.
  """
  ends: list[float] = []

  def wait():
    # If the step failed, its error is raised where the values are read.
    with contextlib.suppress(Exception):
      jax.block_until_ready(values)
    ends.append(time.perf_counter())

  # Not a daemon, since the interpreter must not exit while a thread is in the runtime.
  thread = threading.Thread(target=wait)
  thread.start()

  def read_end() -> float:
    thread.join()
    return ends[0]

  return read_end


def measure(before: float, requested: float, ready: float, end: float) -> Span:
  """Computes the time of one step.

  A step overlaps with the reading of the next batch, so reading counts only as far as
  the devices waited for it. What happens between two steps, such as saving a
  checkpoint, counts to neither.

  Args:
    before: the end of the step before; minus infinity for the first step.
    requested, ready: the times at which the batch was requested and was there.
    end: the end of the step.
  """
  start = max(before, requested)
  return Span(end - start, max(0.0, ready - start), end)
