"""Writes the results of commands to standard output."""

import os
import sys


def write_result(text: str) -> None:
  """Print a text to standard output and flush it.

  If the reader has closed the pipe, as `head` does, the text is discarded, and the
  command goes on to its own exit status.
  """
  try:
    print(text, flush=True)
  except BrokenPipeError:
    # Python flushes what is left at exit, which would fail again, with a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
