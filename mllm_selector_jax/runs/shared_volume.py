"""Waits until all processes of a run see what the first one wrote to a shared volume.

A network file system may tell a host late of what another host has written: NFS keeps
names that were not there, and sizes, for up to a minute (`acdirmax`, `acregmax`). The
first process therefore tells the others what is there, and they look until they see it.
"""

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from mllm_selector_jax.runs import arm_pointers, artifacts, peers
from mllm_selector_jax.types import InputError

# Seconds until all hosts see a new file whose name none of them has looked up before.
SEEN_AT_ONCE = 5.0
SEEN = 150.0  # seconds until all hosts see any file
_PAUSE = 0.1  # seconds between two looks
_MEETING = ".meeting-"


def check(folder: Path) -> None:
  """Checks that a workdir is the same in all processes, and waits until they see it so.

  All processes must call this; a single one has nothing to check.

  Raises:
    InputError: it is another folder than that of the first process, or a file is not
      seen in time.
  """
  number, count = peers.number_and_count()
  if count == 1:
    return
  token = uuid.uuid4().hex
  if number == 0:
    for left in folder.glob(f"{_MEETING}*"):  # by a run that was killed
      left.unlink()
    artifacts.write_text(folder / f"{_MEETING}{token}", token)
  token = peers.exchange(token)[0]
  path = folder / f"{_MEETING}{token}"
  if not _wait(path.exists, path, SEEN_AT_ONCE):
    raise InputError(
      f"{folder} is not the folder that process 0 writes to. Give a --workdir on a"
      " volume that all processes share, or in a bucket."
    )
  peers.exchange("seen")
  if number == 0:
    path.unlink()


def wait_for_workdir(folder: Path) -> None:
  """Waits until all processes see the artifacts and pointers that the first one sees.

  All processes must call this, after the first one has finished interrupted swaps.

  Raises:
    InputError: a file is not seen in time.
  """
  if peers.number_and_count()[1] == 1:
    return
  texts = _read_workdir(folder) if peers.is_first_process() else {}
  for name, digest in json.loads(peers.exchange(json.dumps(texts))[0]).items():
    _wait_for_text(folder / name, digest)
  peers.exchange("seen")


def wait_for_artifact(artifact: artifacts.Artifact) -> None:
  """Waits until all processes see an artifact as the first one sees it.

  All processes must call this.

  Raises:
    InputError: a file is not seen in time.
  """
  if peers.number_and_count()[1] == 1:
    return
  _wait_for_first(artifact.marker)
  if not peers.is_first_process():
    for name in (artifact.provenance() or {"outputs": ()})["outputs"]:
      path = artifact.root / name
      _require(_wait(path.exists, path, SEEN), path)
  peers.exchange("seen")


def wait_for_file(path: Path) -> None:
  """Waits until all processes see a small file with the text that the first one sees.

  All processes must call this.

  Raises:
    InputError: the file is not seen in time.
  """
  if peers.number_and_count()[1] > 1:
    _wait_for_first(path)
    peers.exchange("seen")


def _wait_for_first(path: Path) -> None:
  """Waits until a file has the text that the first process reads there."""
  _wait_for_text(path, peers.exchange(_hash_text(path))[0])


def _wait_for_text(path: Path, digest: str) -> None:
  _require(_wait(lambda: _hash_text(path) == digest, path, SEEN), path)


def _read_workdir(folder: Path) -> dict[str, str]:
  """The hashes of all markers and pointers in a workdir, by relative name."""
  paths = [
    path
    for path in folder.rglob(f"*{artifacts.MARKER}")
    if not any(part.endswith((".partial", ".old")) for part in path.parts)
  ]
  for arms in folder.rglob("arms"):
    names = arm_pointers.list_pointers(arms)
    paths += [arm_pointers.pointer_path(arms, name) for name in names]
  return {str(path.relative_to(folder)): _hash_text(path) for path in sorted(paths)}


def _hash_text(path: Path) -> str:
  """The hash of a file's text; "" if it is not there."""
  try:
    return artifacts.hash_json(path.read_text(errors="replace"))
  except OSError:  # NFS: also of a handle whose file was replaced
    return ""


def _wait(is_seen: Callable[[], bool], path: Path, seconds: float) -> bool:
  """Waits until something is seen at a path; returns whether it was in time."""
  deadline = time.monotonic() + seconds
  while not is_seen():
    if time.monotonic() > deadline:
      return False
    # Listing a folder makes NFS ask whether it has changed.
    with contextlib.suppress(OSError):
      os.listdir(path.parent.parent)
      os.listdir(path.parent)
    time.sleep(_PAUSE)
  return True


def _require(seen: bool, path: Path) -> None:
  if not seen:
    raise InputError(
      f"{path} is not here as process 0 sees it, after {SEEN:.0f} s. If the volume is"
      " mounted with long caches (acdirmax, acregmax), mount it with shorter ones, or"
      " give a --workdir on another volume or in a bucket."
    )
