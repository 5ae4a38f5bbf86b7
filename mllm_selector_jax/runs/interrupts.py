"""Handles Ctrl-C and SIGTERM: delays them in critical work, and notices them in waits.

Python runs a signal handler between two bytecode instructions. A process that waits for
other processes is inside a single instruction, which calls a barrier or a collective of
the runtime, and may never return from it. `listen` starts a thread that receives the
signal in this case, and ends the process if its main thread makes no progress.
"""

import collections
import contextlib
import os
import select
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

STDERR = 2
PATIENCE = 5.0  # seconds without progress after a signal that are taken for a wait
AGAIN = 2.0  # seconds after which a further signal ends the process at once
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}  # exit statuses
_TICK = 0.1  # seconds between two looks at the main thread
_FEW = 4  # number of steps from which the duration of a step is estimated
# Seconds that a process takes at most to tell the others why it ends, and to wait until
# they end too; and after a further signal.
_TELLING, _QUICKLY = 6.0, 1.0
_PACKAGE = str(Path(__file__).parent)

_holding: list[str] = []  # descriptions of the current `held` blocks, innermost last
# Seconds of the last steps of the current stage.
_intervals: collections.deque[float] = collections.deque(maxlen=8)
_listener: "_Listener | None" = None


@contextlib.contextmanager
def held(work: str) -> Iterator[None]:
  """Delays the first Ctrl-C until the block ends; a second one interrupts at once.

  In a process that calls `listen`, the first SIGTERM is delayed too. Outside of the
  main thread, the only one that receives signals, this does nothing.

  Args:
    work: what is finished first, as the beginning of a message: "the file is written".
  """
  if threading.current_thread() != threading.main_thread():
    yield
    return
  handler = signal.getsignal(signal.SIGINT)
  received = []

  def hold(number, frame):
    if received:
      handler(number, frame)
    received.append((number, frame))
    _write(f"\nCtrl-C: first {work}. Once more leaves at once.\n")

  if callable(handler):
    signal.signal(signal.SIGINT, hold)
  _holding.append(work)
  try:
    yield
  finally:
    _holding.pop()
    if callable(handler):
      signal.signal(signal.SIGINT, handler)
    if received:
      handler(*received[0])


@contextlib.contextmanager
def pace() -> Iterator[Callable[[], None]]:
  """Yields a function to call after every step of a stage, so that steps are timed.

  After a signal, the main thread may then stand still for three times the median
  duration of the last steps before the process is ended. The median is robust to steps
  that include compilation. With fewer than four timed steps there is no estimate, and
  too little would be lost to wait.
  """
  last = None

  def note() -> None:
    nonlocal last
    now = time.monotonic()
    if last is not None:
      _intervals.append(now - last)
    last = now

  _intervals.clear()
  try:
    yield note
  finally:
    _intervals.clear()


def listen(
  who: str, tell: Callable[[str, int], None] = lambda text, status: None
) -> None:
  """Lets SIGTERM and SIGINT end this process while it waits for others.

  After either signal, the process ends with status 143 or 130 once its main thread has
  made no progress for `PATIENCE` seconds, or for three times the duration of a step if
  that is longer (see `pace`). Inside a `held` block it continues. A further signal,
  more than `AGAIN` seconds after the first, ends it in any case.

  Args:
    who: how messages name this process.
    tell: called with the message and the exit status before the process ends, to pass
      them to the other processes; the process ends when it returns, or after a few
      seconds.
  """
  global _listener
  if _listener is None:
    _listener = _Listener()
  _listener.who, _listener.tell = who, tell


@contextlib.contextmanager
def at_once() -> Iterator[None]:
  """Makes a listening process end as soon as a signal arrives inside the block.

  For blocks in which there is nothing to lose.
  """
  assert _listener is not None
  _listener.eager = True
  try:
    yield
  finally:
    _listener.eager = False


class _Listener:
  """A thread that receives signals through a pipe.

  Attributes:
    who: how messages name this process.
    tell: tells the other processes why this one ends.
    eager: whether the process ends as soon as a signal arrives.
  """

  def __init__(self):
    self.who, self.eager = "this process", False
    self.tell: Callable[[str, int], None] = lambda text, status: None
    self._main = threading.main_thread().ident
    self._pipe, write_end = os.pipe()
    os.set_blocking(write_end, False)
    # Python's C-level handler writes the signal's number to the pipe, even while the
    # main thread is inside a call that does not return.
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    # A forked worker inherits the pipe, and must not write its own signals to it.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=self._run, name="signals", daemon=True).start()

  def _run(self) -> None:
    received: signal.Signals | None = None
    received_at, has_explained = 0.0, False
    position, unchanged_since = None, 0.0
    while True:
      timeout = None if received is None else _TICK
      ready = select.select([self._pipe], [], [], timeout)[0]
      now = time.monotonic()
      for number in os.read(self._pipe, 64) if ready else b"":
        if number not in STATUS:
          continue
        if received is None:
          received, received_at = signal.Signals(number), now
          position, unchanged_since = self._find_position(), now
        elif now - received_at > AGAIN:
          time.sleep(_TICK)  # gives the main thread time to leave by itself
          again = f"got {signal.Signals(number).name} again"
          self._end(received, again, _QUICKLY)
      if received is None:
        continue
      current = self._find_position()
      if position is None or current[0] is not position[0] or current[1] != position[1]:
        position, unchanged_since = current, now
      if now - unchanged_since <= self._patience():
        continue
      if not _holding:
        self._end(received, f"was waiting for the others ({_name(current[0])})")
      if received == signal.SIGTERM and not has_explained:
        _write(f"SIGTERM: first {_holding[-1]}. Once more leaves at once.\n")
        has_explained = True

  def _find_position(self) -> tuple:
    """Returns the main thread's innermost frame, and its current instruction."""
    frame = sys._current_frames()[self._main]
    return frame, frame.f_lasti

  def _patience(self) -> float:
    """Returns the seconds without progress after which the process ends."""
    if self.eager:
      return 0.0
    intervals = list(_intervals)
    step = statistics.median_low(intervals) if len(intervals) >= _FEW else 0.0
    return max(PATIENCE, 3 * step)

  def _end(self, number: signal.Signals, why: str, telling: float = _TELLING) -> None:
    """Ends the process, and says why; may take so many seconds to tell the others."""
    how = "Interrupted" if number == signal.SIGINT else "Stopped"
    text = (
      f"{how}: {self.who} {why} when {number.name} came. The same command resumes from"
      " what is complete."
    )
    _write(text + "\n")
    if not self.eager:
      # In a thread, since the connection to the others may hang.
      arguments = text, STATUS[number]
      teller = threading.Thread(target=self.tell, args=arguments, daemon=True)
      teller.start()
      teller.join(telling)
    os._exit(STATUS[number])


def _name(frame) -> str:
  """Names the innermost function of this package on the stack of a frame."""
  while frame is not None:
    path = frame.f_code.co_filename
    if path.startswith(_PACKAGE):
      module = Path(path).relative_to(_PACKAGE).with_suffix("")
      return f"in {'.'.join(module.parts)}.{frame.f_code.co_name}"
    frame = frame.f_back
  return "outside the package"


def _write(text: str) -> None:
  # Not print(), which the signal may have interrupted.
  os.write(STDERR, text.encode())
