"""Ctrl-C, kept out of work that is better ended than broken off."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

STDERR = 2


@contextlib.contextmanager
def held(work: str) -> Iterator[None]:
  """Holds the first Ctrl-C back until the block ends; a second comes through at once.

  Outside the main thread, which alone hears of Ctrl-C, it does nothing.

  Args:
    work: what is ended first, for whoever waits.
  """
  before = signal.getsignal(signal.SIGINT)
  if not callable(before) or threading.current_thread() != threading.main_thread():
    yield
    return
  came = []

  def hold(number, frame):
    if came:
      before(number, frame)
    came.append((number, frame))
    # Not print(): this may have come in the midst of one.
    os.write(STDERR, f"\nCtrl-C: first {work}. Once more leaves at once.\n".encode())

  signal.signal(signal.SIGINT, hold)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)
    if came:
      before(*came[0])
