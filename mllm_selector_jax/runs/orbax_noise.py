"""Keeps off the terminal what orbax and tensorstore print beside raising it.

If a checkpoint cannot be written, the error is raised where the checkpoint is waited
for, and explained there. Their threads also log it, with a traceback for every array.
"""

import functools
import logging
import sys
from typing import Any

_CLOSED = "Event loop is closed"  # what tensorstore's callbacks find after an error


class _Raised(logging.Filter):
  """Drops orbax's records of errors, which its caller gets as well."""

  def filter(self, record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


@functools.cache
def keep_off() -> None:
  """Drops these messages for the rest of the process; other ones are shown."""
  logging.getLogger("absl").addFilter(_Raised())
  show = sys.unraisablehook

  def show_others(unraisable: Any) -> None:
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == _CLOSED):
      show(unraisable)

  sys.unraisablehook = show_others
