"""Calls to a bucket that outlast lost answers, and errors that say what to do."""

import contextlib
from collections.abc import Iterator

from etils import epath

from mllm_selector_jax.types import RunError

_DELETIONS = 4  # how often a deletion is tried


def delete(path: epath.Path) -> None:
  """Deletes a file or a folder of the bucket, if it is there.

  If the answer to a request is lost, the client asks again, and is told that there is
  no such file.

  Raises:
    FileNotFoundError: it is still there after several attempts.
  """
  for attempt in range(_DELETIONS):
    if not path.exists():
      return
    try:
      path.rmtree() if path.is_dir() else path.unlink()
    except FileNotFoundError:
      if attempt == _DELETIONS - 1 and path.exists():
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
