"""Calls to a bucket that outlast lost answers, and errors that say what to do.

If the answer to a request is lost, the client asks again, and may be told that the
file, or the upload, does not exist: the first request has done its work.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from mllm_selector_jax.types import RunError

_ATTEMPTS = 4  # how often a deletion or an upload is tried


def delete(path: epath.Path) -> None:
  """Deletes a file or a folder of the bucket, if it is there.

  Raises:
    FileNotFoundError: it is still there after several attempts.
  """
  for attempt in range(_ATTEMPTS):
    if not path.exists():
      return
    try:
      path.rmtree() if path.is_dir() else path.unlink()
    except FileNotFoundError:
      if attempt == _ATTEMPTS - 1 and path.exists():
        raise


def upload(source: Path, target: epath.Path) -> None:
  """Copies a local file to the bucket.

  Raises:
    FileNotFoundError: the bucket is not there, or none of several attempts ended.
  """
  target.parent.mkdir(parents=True, exist_ok=True)
  for attempt in range(_ATTEMPTS):
    with open(source, "rb") as file:
      try:
        with target.open("wb") as remote:
          shutil.copyfileobj(file, remote, 1 << 24)
        return
      except FileNotFoundError:  # the upload is unknown, and has to begin again
        if attempt == _ATTEMPTS - 1:
          raise


def write_text(path: epath.Path, text: str) -> None:
  """Writes a text to a file of the bucket.

  Raises:
    FileNotFoundError: the bucket is not there, or none of several attempts ended.
  """
  for attempt in range(_ATTEMPTS):
    try:
      path.write_text(text)
      return
    except FileNotFoundError:
      if attempt == _ATTEMPTS - 1:
        raise


@contextlib.contextmanager
def explained(remote: epath.Path) -> Iterator[None]:
  """Explains what goes wrong in the block when a bucket is read or written.

  Raises:
    RunError: always in place of another error.
  """
  try:
    yield
  except FileNotFoundError as error:
    raise RunError(f"{remote}: {error}; it was there when the run began.") from error
  except Exception as error:  # cloud clients have errors of their own
    raise RunError(
      f"{remote}: can no longer be reached ({type(error).__name__}:"
      f" {str(error)[:200]}). The same command resumes from what is complete."
    ) from error
