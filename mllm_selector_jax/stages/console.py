"""What people see: messages and progress, on the console and in log.txt."""

import contextlib
import datetime
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import tqdm

LINES_EVERY = 10.0  # seconds between progress lines where there is no terminal


class Console:
  """Prints to standard error and appends the same to the log."""

  def __init__(self, log: Path):
    self._log = log
    self._terminal = sys.stderr.isatty()

  def say(self, text: str) -> None:
    """One message, to the console and the log."""
    tqdm.tqdm.write(text, file=sys.stderr)
    self.record(text)

  def record(self, text: str) -> None:
    """Something for the log alone, such as a traceback."""
    now = datetime.datetime.now().isoformat(timespec="seconds")
    with contextlib.suppress(OSError), open(self._log, "a") as log:
      log.write("".join(f"{now} {line}\n" for line in text.splitlines()))

  @contextlib.contextmanager
  def progress(
    self, title: str, unit: str = "row"
  ) -> Iterator[Callable[[int, int | None], None]]:
    """Gives a function of (done, total) that shows rate and time left.

    A bar on a terminal; elsewhere a line every few seconds. The log gets one
    line at the end.
    """
    start = last = time.monotonic()
    first = None
    latest = (0, None)
    bar = None
    if self._terminal:
      bar = tqdm.tqdm(desc=title, unit=unit, unit_scale=True, leave=False)

    def update(done: int, total: int | None) -> None:
      nonlocal last, first, latest
      first = done if first is None else first
      latest = (done, total)
      if bar is not None:
        if bar.total != total:
          bar.total = total
        if bar.initial != first:
          bar.initial = bar.n = bar.last_print_n = first
        bar.update(done - bar.n)
      elif time.monotonic() - last >= LINES_EVERY and done != total:
        last = time.monotonic()
        self.say(_meter(done, total, last - start, title, unit, first))

    try:
      yield update
    finally:
      if bar is not None:
        bar.close()
      done, total = latest
      line = _meter(done, total, time.monotonic() - start, title, unit, first or 0)
      self.record(line)


def _meter(done, total, elapsed, title, unit, first) -> str:
  return tqdm.tqdm.format_meter(
    done,
    total,
    elapsed,
    ncols=78,
    prefix=title,
    unit=unit,
    unit_scale=True,
    initial=first,
    ascii=True,
  )
