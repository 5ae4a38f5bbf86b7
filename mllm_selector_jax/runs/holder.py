"""Locks a workdir, so that only one run at a time works in it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from mllm_selector_jax.types import InputError


def describe_process() -> str:
  """Names this process for messages of other processes."""
  return f"process {os.getpid()} on host {socket.gethostname()}"


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
  """Locks the workdir for this process; the system releases the lock if it dies.

  Raises:
    InputError: another process, which the message names, holds the lock; or the folder
      cannot be written to.
  """
  path = workdir / ".lock"
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+")
  except OSError as error:
    raise InputError(
      f"{workdir}: cannot be written to ({error.strerror}). Give a --workdir"
      " that this user may write to."
    ) from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      file.seek(0)
      raise InputError(
        f"{workdir} is in use by {file.read().strip() or 'another process'}."
        " Wait for it to end, stop it, or give another --workdir."
      ) from error
    file.truncate(0)
    file.write(describe_process())
    file.flush()
    yield
