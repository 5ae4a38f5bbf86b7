"""Keeps in files what the loops of a selection did, so that a command goes on there."""

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax import storage
from mllm_selector_jax.runs import own_code
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection.overseer import Keeper, Overseer
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows

EVERY = 30.0  # seconds between two writes
_DIGEST = hashlib.sha256().digest_size


def oversee(run: Run, folder: Path | None = None, about: str = "") -> Overseer:
  """Return an overseer that shows the progress on the console of a run.

  Args:
    run: The invocation.
    folder: A folder of its own in which what loops did is kept, until whoever gave it
      removes it; None to keep nothing. `Artifact.aside` names one that goes when the
      artifact is complete.
    about: What the loops are of, for the console; by default the stage.
  """

  def watch(title: str, unit: str = "row"):
    return run.progress(f"{about or run.stage}: {title}", unit)

  if folder is None:
    return Overseer(watch)
  return Overseer(watch, KeptWork(folder, run.say).keep)


class KeptWork:
  """What the loops of one command did, in a folder of its own."""

  def __init__(self, folder: Path, say: Callable[[str], None]):
    """Names the folder, which is made by the first write.

    Args:
      folder: The folder.
      say: Shows a message.
    """
    self._folder, self._say = folder, say
    self._loops: dict[Path, _KeptLoop] = {}
    self._written = time.monotonic()
    self._failed = False

  def keep(self, name: str, *made_from: Any) -> Keeper:
    """Return the keeper of a loop; see `Overseer`."""
    path = self._folder / f"{name}-{_identify(*made_from)}"
    return self._loops.setdefault(path, _KeptLoop(path, self._write))

  def _write(self) -> None:
    """Write what all loops handed over, if the last write was a while ago."""
    if not self._failed and time.monotonic() - self._written < EVERY:
      return
    try:
      for loop in self._loops.values():
        loop.forget() if self._failed else loop.write()
    except OSError as error:
      # The selection itself does not need the files.
      self._failed = True
      shutil.rmtree(self._folder, ignore_errors=True)
      self._say(
        f"{self._folder}: what is done cannot be kept ({error.strerror}), so that this"
        " command begins again if it is ended. Free space in the workdir to keep it."
      )
    self._written = time.monotonic()


class _KeptLoop:
  """What one loop did, in the parts `<number>.npz` of a folder; see `Keeper`."""

  def __init__(self, folder: Path, write: Callable[[], None]):
    self._folder, self._write_all = folder, write
    self._parts = 0  # on disk
    self._waiting: list[dict[str, np.ndarray]] = []
    self._starts_over = False

  def read(self) -> Iterator[dict[str, np.ndarray]]:
    if not self._starts_over:
      self._parts = 0
      while (part := _read(self._path(self._parts))) is not None:
        self._parts += 1
        yield part
      # Parts behind a damaged one would not follow on what is written next.
      for path in self._folder.glob("*.npz"):
        if int(path.stem) >= self._parts:
          path.unlink()
    for part in self._waiting:
      yield {name: np.array(value) for name, value in part.items()}

  def add(self, **arrays: np.ndarray) -> None:
    self._waiting.append(arrays)
    self._write_all()

  def replace(self, **arrays: Any) -> None:
    # The caller may change its arrays before they are written.
    self._waiting = [{name: np.array(value) for name, value in arrays.items()}]
    self._starts_over = True
    self._write_all()

  def write(self) -> None:
    """Write what was handed over since the last call."""
    if not self._waiting:
      return
    joined = self._waiting[0]
    if len(self._waiting) > 1:
      joined = {
        name: np.concatenate([part[name] for part in self._waiting]) for name in joined
      }
    number = 0 if self._starts_over else self._parts
    self._folder.mkdir(parents=True, exist_ok=True)
    _write(self._path(number), joined)
    self._parts = number + 1
    self.forget()

  def forget(self) -> None:
    """Drop what was handed over since the last call."""
    self._waiting, self._starts_over = [], False

  def _path(self, number: int) -> Path:
    return self._folder / f"{number}.npz"


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
  """Write arrays behind the hash of what follows it, atomically."""
  with storage.writing(path) as partial, open(partial, "w+b") as file:
    file.write(bytes(_DIGEST))
    np.savez(file, **arrays)  # type: ignore[arg-type]
    file.seek(_DIGEST)
    digest = hashlib.file_digest(file, "sha256").digest()
    file.seek(0)
    file.write(digest)


def _read(path: Path) -> dict[str, np.ndarray] | None:
  """Read what `_write` wrote; None if there is nothing, or it is damaged."""
  with contextlib.suppress(OSError), open(path, "rb") as file:
    expected = file.read(_DIGEST)
    if hashlib.file_digest(file, "sha256").digest() != expected:
      return None
    file.seek(_DIGEST)
    with np.load(file, allow_pickle=False) as arrays:
      return dict(arrays)
  return None


def _identify(*made_from: Any) -> str:
  """Hash what decides the result of a loop, with this code and the kind of device."""
  import jax

  digest = hashlib.sha256()

  def update(value: Any) -> None:
    if isinstance(value, UnitRows):
      for array in value.fingerprint():
        update(array)
    elif isinstance(value, np.ndarray):
      digest.update(f"{value.dtype} {value.shape} ".encode())
      digest.update(np.ascontiguousarray(value).data)
    else:
      digest.update(f"{value!r} ".encode())

  for value in (own_code.hash_code(), jax.local_devices()[0].device_kind, *made_from):
    update(value)
  return digest.hexdigest()[:16]
