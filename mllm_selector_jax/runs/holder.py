"""Locks a workdir, so that only one run at a time works in it."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from mllm_selector_jax.types import InputError


def describe_process() -> str:
  """Names this process for messages of other processes."""
  return f"process {os.getpid()} on host {socket.gethostname()}"


# What a file system without locks answers, such as Lustre without its option `flock`,
# or NFS whose lock service does not run.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[str]:
  """Locks the workdir for this process; the system releases the lock if it dies.

  Yields:
    A warning if the file system has no locks; otherwise "".

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
  warning = ""
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in _NO_LOCKS:
        warning = (
          f"Warning: the file system of {workdir} has no locks ({error.strerror}). See"
          " to it yourself that no other run uses this workdir."
        )
      elif not isinstance(error, BlockingIOError):
        raise InputError(
          f"{path}: cannot be locked ({error.strerror}). Give a --workdir on another"
          " volume."
        ) from error
      else:
        file.seek(0)
        raise InputError(
          f"{workdir} is in use by {file.read().strip() or 'another process'}."
          " Wait for it to end, stop it, or give another --workdir."
        ) from error
    file.truncate(0)
    file.write(describe_process())
    file.flush()
    yield warning
