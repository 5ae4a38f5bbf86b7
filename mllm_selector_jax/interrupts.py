"""Ctrl-C and SIGTERM: kept out of work that should end, heard in a wait for others.

Python runs the handler of a signal between two of its own instructions. A process that
waits for other processes is inside a single one, a barrier or a collective of the
runtime, and may stay there for good. `listen` starts a thread that hears the signal
there, and ends the process when its main thread does not move any more.
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
PATIENCE = 5.0  # seconds without movement, after a signal, that are taken for a wait
AGAIN = 2.0  # seconds after which another signal means "now"
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
_TICK = 0.1  # seconds between looks at the main thread
_FEW = 4  # steps, from which on it is known how long one takes
_TELLING = 1.0  # seconds
_LATE = 1.5  # seconds that the first process, which the others are connected to, adds
_PACKAGE = str(Path(__file__).parent)

_holding: list[str] = []  # works that are held, the innermost last
_intervals: collections.deque[float] = collections.deque(
  maxlen=8
)  # of the stage's steps
_listener: "_Listener | None" = None


@contextlib.contextmanager
def held(work: str) -> Iterator[None]:
  """Holds the first Ctrl-C back until the block ends; a second comes through at once.

  A process that listens does not end at the first SIGTERM either, however long the
  block takes. Outside the main thread, which alone hears signals, it does nothing.

  Args:
    work: what is ended first, for whoever waits.
  """
  if threading.current_thread() != threading.main_thread():
    yield
    return
  before = signal.getsignal(signal.SIGINT)
  came = []

  def hold(number, frame):
    if came:
      before(number, frame)
    came.append((number, frame))
    _write(f"\nCtrl-C: first {work}. Once more leaves at once.\n")

  if callable(before):
    signal.signal(signal.SIGINT, hold)
  _holding.append(work)
  try:
    yield
  finally:
    _holding.pop()
    if callable(before):
      signal.signal(signal.SIGINT, before)
    if came:
      before(*came[0])


@contextlib.contextmanager
def pace() -> Iterator[Callable[[], None]]:
  """Gives a function to call after every step of a stage.

  A wait of three times the median of the last steps is then still taken for a step.
  The median leaves out those that were compiled, and of fewer steps than four too
  little is lost to wait for.
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
  who: str, first: bool, tell: Callable[[str, int], None] = lambda text, status: None
) -> None:
  """Lets SIGTERM and SIGINT end this process while it waits for others.

  After either signal, the process ends with status 143 or 130 once its main thread has
  stood still for `PATIENCE` seconds, or for twice as long as a step takes, see `pace`.
  While work is `held` it goes on. Another signal, more than `AGAIN` seconds after the
  first, ends it in any case.

  Args:
    who: what messages call this process.
    first: whether others are connected to this one; it then ends a little after them,
      since the runtime aborts those that lose the connection.
    tell: given the message and the exit status, in time for the other processes.
  """
  global _listener
  if _listener is None:
    _listener = _Listener()
  _listener.who, _listener.first, _listener.tell = who, first, tell


@contextlib.contextmanager
def at_once() -> Iterator[None]:
  """A block in which nothing is lost: a process that listens ends at the signal."""
  assert _listener is not None
  _listener.eager = True
  try:
    yield
  finally:
    _listener.eager = False


class _Listener:
  """The thread that hears signals, and the pipe through which it does.

  Attributes:
    who: what messages call this process.
    first: whether others are connected to it.
    tell: tells the others why it ends.
    eager: whether it ends as soon as a signal comes.
  """

  def __init__(self):
    self.who, self.first, self.eager = "this process", False, False
    self.tell: Callable[[str, int], None] = lambda text, status: None
    self._main = threading.main_thread().ident
    self._pipe, written = os.pipe()
    os.set_blocking(written, False)
    # The system's own handler writes the signal's number there, wherever Python is.
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    # A forked worker has the same pipe, and signals of its own.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=self._run, name="signals", daemon=True).start()

  def _run(self) -> None:
    asked, came, told = None, 0.0, False
    place, since = None, 0.0
    while True:
      wait = None if asked is None else _TICK
      ready = select.select([self._pipe], [], [], wait)[0]
      now = time.monotonic()
      for number in os.read(self._pipe, 64) if ready else b"":
        if number not in STATUS:
          continue
        if asked is None:
          asked, came = signal.Signals(number), now
          place, since = self._look(), now
        elif now - came > AGAIN:
          time.sleep(_TICK)  # in which the main thread may leave by itself
          self._end(asked, f"got {signal.Signals(number).name} again")
      if asked is None:
        continue
      here = self._look()
      if place is None or here[0] is not place[0] or here[1] != place[1]:
        place, since = here, now
      if now - since <= self._patience():
        continue
      if not _holding:
        self._end(asked, f"was waiting for the others ({_name(here[0])})")
      if asked == signal.SIGTERM and not told:
        _write(f"SIGTERM: first {_holding[-1]}. Once more leaves at once.\n")
        told = True

  def _look(self) -> tuple:
    """Where the main thread is: its innermost frame and the instruction there."""
    frame = sys._current_frames()[self._main]
    return frame, frame.f_lasti

  def _patience(self) -> float:
    """Seconds without movement after which the process ends."""
    if self.eager:
      return 0.0
    intervals = list(_intervals)
    step = statistics.median_low(intervals) if len(intervals) >= _FEW else 0.0
    return max(PATIENCE, 3 * step) + (_LATE if self.first else 0.0)

  def _end(self, number: signal.Signals, why: str) -> None:
    how = "Interrupted" if number == signal.SIGINT else "Stopped"
    text = (
      f"{how}: {self.who} {why} when {number.name} came. The same command goes on from"
      " what is whole."
    )
    _write(text + "\n")
    if not self.eager:
      # In a thread: whoever carries it to the others may stand still.
      arguments = text, STATUS[number]
      teller = threading.Thread(target=self.tell, args=arguments, daemon=True)
      teller.start()
      teller.join(_TELLING)
    os._exit(STATUS[number])


def _name(frame) -> str:
  """The innermost function of this package that a frame was called by."""
  while frame is not None:
    path = frame.f_code.co_filename
    if path.startswith(_PACKAGE):
      place = Path(path).relative_to(_PACKAGE).with_suffix("")
      return f"in {'.'.join(place.parts)}.{frame.f_code.co_name}"
    frame = frame.f_back
  return "outside the package"


def _write(text: str) -> None:
  # Not print(): a signal may have come in the midst of one.
  os.write(STDERR, text.encode())
