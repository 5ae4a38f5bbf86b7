"""Shows messages and progress on the console, and writes them to log.txt."""

import contextlib
import datetime
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tqdm

LINES_EVERY = 10.0  # seconds between progress lines where there is no terminal


class Console:
  """Prints to standard error, and appends the same text to the log."""

  def __init__(self, log: Path):
    self._log = log
    self._terminal = sys.stderr.isatty()

  def say(self, text: str) -> None:
    """Writes a message to the console and the log."""
    with contextlib.suppress(OSError):  # the terminal may have been closed
      tqdm.tqdm.write(text, file=sys.stderr)
    self.record(text)

  def record(self, text: str) -> None:
    """Writes a text, such as a traceback, to the log only."""
    now = datetime.datetime.now().isoformat(timespec="seconds")
    lines = "".join(f"{now} {line}\n" for line in text.splitlines())
    # A message may quote a lone surrogate of a pool, which UTF-8 cannot hold.
    encoded = lines.encode("utf-8", "backslashreplace")
    with contextlib.suppress(OSError), open(self._log, "ab") as log:
      log.write(encoded)

  @contextlib.contextmanager
  def progress(
    self, title: str, unit: str = "row"
  ) -> Iterator[Callable[[int, int | None], None]]:
    """Yields a function of (done, total) that shows the rate and the remaining time.

    It shows a bar on a terminal, and otherwise prints a line every `LINES_EVERY`
    seconds. The log gets one line at the end.
    """
    start = last = time.monotonic()
    pace = Pace()
    latest = (0, None)
    bar = None
    if self._terminal:
      bar = tqdm.tqdm(desc=title, unit=unit, unit_scale=True, leave=False)

    def update(done: int, total: int | None) -> None:
      nonlocal last, latest
      now = time.monotonic()
      pace.note(done, now)
      latest = (done, total)
      if bar is not None:
        if bar.total != total:
          bar.total = total
        if bar.initial != pace.before:
          bar.initial = bar.n = bar.last_print_n = pace.before
        bar.update(done - bar.n)
      elif now - last >= LINES_EVERY and done != total:
        last = now
        self.say(_meter(done, total, now - start, title, unit, pace.rate()))

    try:
      yield update
    finally:
      if bar is not None:
        bar.close()
      done, total = latest
      now = time.monotonic()
      self.record(_meter(done, total, now - start, title, unit, pace.rate()))


class Pace:
  """Measures the rate of a stage, without compilation and work of earlier runs.

  Attributes:
    before: the amount that was done already when this run began; None before the first
      note.
  """

  def __init__(self):
    self.before: int | None = None
    # Amount and time after the first step, which includes compilation, and the last.
    self._warm: tuple[int, float] | None = None
    self._last: tuple[int, float] | None = None

  def note(self, done: int, now: float) -> None:
    """Notes the amount that is done at a time in seconds."""
    if self.before is None:
      self.before = done
    elif done > self.before:
      self._last = (done, now)
      self._warm = self._warm or self._last

  def rate(self) -> float | None:
    """Returns the amount done per second; None before the second step."""
    if self._warm is None or self._last == self._warm:
      return None
    done, seconds = np.subtract(self._last, self._warm)
    return float(done / seconds) if seconds > 0 else None


def _meter(done, total, elapsed, title, unit, rate) -> str:
  return tqdm.tqdm.format_meter(
    done,
    total,
    elapsed,
    ncols=78,
    prefix=title,
    unit=unit,
    unit_scale=max(done, total or 0) >= 100_000,
    rate=rate,
    initial=0 if rate else done,
    ascii=True,
  )
