"""Explains why a command failed: one message with a remedy, and an exit status."""

import errno
import re
import shutil
import traceback
from pathlib import Path

from mllm_selector_jax.plugins import PluginError
from mllm_selector_jax.runs import processes
from mllm_selector_jax.types import InputError, RunError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXT = re.compile("No space left on device|Disk quota exceeded")
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
# Messages of XLA, and of the allocators that it uses.
_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|out of memory|bad_alloc", re.IGNORECASE)
_TUNING = (
  "--config.model.remat=full, a larger --config.{0}.accumulate, a smaller"
  " --config.{0}.row_length or a larger --config.mesh.fsdp"
)
# The settings by which each stage needs less memory.
KNOBS = {
  "align": _TUNING.format("align"),
  "seed": _TUNING.format("seed"),
  "tune": _TUNING.format("tune"),
  "score": "a smaller --config.score.batch_rows or --config.score.row_length",
  "evaluate": "a smaller --config.evaluate.batch",
  "select": "fewer --config.select.clusters",
}


def explain(error: BaseException, stage: str, workdir: Path | None) -> tuple[str, int]:
  """Explains an exception that ended a command.

  Args:
    error: the exception.
    stage: the current stage; "" before the first one.
    workdir: the folder that the run writes to; None if there is none yet.

  Returns:
    The message and the exit status.
  """
  where = f"{stage}: " if stage else ""
  if isinstance(error, InputError):
    return str(error), 2
  if isinstance(error, PluginError):
    log = f"; {workdir / 'log.txt'} has the traceback" if workdir else ""
    return f"{where}{error}. This is a fault of the plug-in{log}.", 1
  if isinstance(error, RunError):
    return str(error) + _room(error, workdir), 1
  if processes.is_lost(error):
    return (
      f"{where}another process of this run is gone ({_first_line(error)}). See its"
      " last message, then start all of them again; they resume from what is complete.",
      1,
    )
  if isinstance(error, MemoryError) or (
    isinstance(error, RuntimeError) and _MEMORY.search(str(error))
  ):
    remedy = KNOBS.get(stage, "a smaller batch or row_length of the current stage")
    return (
      f"{where}out of memory ({_first_line(error)}). Give {remedy}; the same command"
      " resumes from what is complete.",
      1,
    )
  if isinstance(error, OSError):
    return where + _explain_system(error, workdir), 1
  text = f"{where}{type(error).__name__}: {_first_line(error)}"
  if room := _room(error, workdir):
    return text + room, 1
  frames = traceback.extract_tb(error.__traceback__)
  location = (
    f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
  )
  return (
    f"{text}{location}. This is a fault of the program, not of your input"
    + (f"; {workdir / 'log.txt'} has the traceback to report." if workdir else "."),
    1,
  )


def is_interruption(error: BaseException) -> bool:
  """Returns whether an error is Ctrl-C, or what a library raised because of it.

  C++ code that calls Python, such as jax's comparison of arguments, turns any exception
  of the call into one of its own, of which it is the cause.
  """
  cause: BaseException | None = error
  while cause is not None and not isinstance(cause, KeyboardInterrupt):
    cause = cause.__cause__
  return cause is not None


def is_expected(error: BaseException) -> bool:
  """Returns whether the message is enough, so that no traceback need be logged."""
  return isinstance(error, InputError | RunError)


def _explain_system(error: OSError, workdir: Path | None) -> str:
  names = [str(name) for name in (error.filename, error.filename2) if name is not None]
  name = " -> ".join(names) or str(workdir or "a file")
  text = f"{name}: {error.strerror or _first_line(error)}"
  if error.errno in _FULL:
    return text + (_room(error, workdir) or ".")
  if error.errno in _DENIED:
    return text + ". Give this user access to it, or give another --workdir."
  return text + ". The same command resumes from what is complete."


def _room(error: BaseException, workdir: Path | None) -> str:
  """Says what to do if the error is that the disk is full; otherwise returns ""."""
  code = getattr(error, "errno", None) or getattr(error.__cause__, "errno", None)
  if code not in _FULL and not _FULL_TEXT.search(str(error)):
    return ""
  free = ""
  if workdir is not None and workdir.exists():
    free = f" ({shutil.disk_usage(workdir).free:,} bytes are free under {workdir})"
  return (
    f"{free}. Make room and give the same command again; it resumes from what is"
    " complete."
  )


def _first_line(error: BaseException) -> str:
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return lines[0][:300] if lines else type(error).__name__
