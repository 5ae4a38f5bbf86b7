"""Holds a workdir in a bucket for one run at a time.

Buckets have no locks. A run therefore leaves a note, which it writes anew every `BEAT`
seconds, and which tells whether the run is alive: the note of one that was killed stays
as it is. A run whose note another one has replaced ends.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etils import epath

from mllm_selector_jax.runs import holder, remote_calls
from mllm_selector_jax.types import InputError, RunError

NAME = ".holder"
BEAT = 15.0  # seconds between two signs of life
QUIET = 45.0  # seconds without one after which a run is taken to have been killed
OLD = 600.0  # seconds since the last one, by both clocks, after which nobody waits


class Lease:
  """The note of this run in its bucket.

  Args:
    remote: the workdir in the bucket.
  """

  def __init__(self, remote: epath.Path):
    self._remote, self._note = remote, remote / NAME
    self._run, self._beats = uuid.uuid4().hex, 0
    self._lost = ""  # who has taken the workdir over
    self._ended = threading.Event()
    self._thread: threading.Thread | None = None

  def take(self, say: Callable[[str], None]) -> str:
    """Leaves the note, and writes it anew until `release`.

    Args:
      say: shows a message if this takes long.

    Returns:
      A warning if another run left a note and gives no sign of life; otherwise "".

    Raises:
      InputError: another run works in the workdir.
    """
    warning = ""
    found = self._read()
    if found is not None and self._is_left(found, say):
      warning = (
        f"Warning: {self._remote} was last used by {found['holder']}, which did not end"
        " properly and gives no sign of life. This run goes on from what it left."
      )
    self._write()
    self._thread = threading.Thread(target=self._beat, daemon=True)
    self._thread.start()
    return warning

  def check(self) -> None:
    """Checks that the workdir is still this run's.

    Raises:
      RunError: another run has taken it over.
    """
    if self._lost:
      raise RunError(
        f"{self._remote} has been taken over by {self._lost}, since this run could not"
        " write its sign of life there for a while. Two runs at once would overwrite"
        " each other's files, so this one ends."
      )

  def release(self) -> None:
    """Stops writing the note, and removes it unless it is another run's."""
    if self._thread is None:
      return
    self._ended.set()
    self._thread.join(BEAT)  # a call to the bucket may hang
    with contextlib.suppress(Exception):  # the next run waits for a sign of life
      found = self._read()
      if found is not None and found["run"] == self._run:
        self._note.unlink()

  def _read(self) -> dict[str, Any] | None:
    """Reads the note; returns None if there is none."""
    try:
      text = self._note.read_text()
    except FileNotFoundError:
      return None
    unknown = {"holder": "another run", "machine": "", "process": 0}
    unknown |= {"run": "", "beat": -1, "time": 0.0}
    try:
      found = json.loads(text)
      return unknown | found
    except (ValueError, TypeError):  # no note of this version
      return unknown | {"holder": text[:100]}

  def _write(self) -> None:
    note = {
      "holder": holder.describe_process(),
      "machine": _name_machine(),
      "process": os.getpid(),
      "run": self._run,
      "beat": self._beats,
      "time": time.time(),
    }
    remote_calls.write_text(self._note, json.dumps(note))
    self._beats += 1

  def _is_left(self, found: dict[str, Any], say: Callable[[str], None]) -> bool:
    """Waits for a sign of life of another run, if it may have one.

    Returns:
      Whether its note stays, as that of a run that was killed; False if it has ended.

    Raises:
      InputError: there is a sign of life.
    """
    if time.time() - found["time"] > OLD or _is_gone(found):
      return True
    say(
      f"{self._remote} is used by {found['holder']}, or that was killed: waiting"
      f" {QUIET:.0f} s for a sign of it."
    )
    deadline = time.monotonic() + QUIET
    while time.monotonic() < deadline:
      time.sleep(min(1.0, QUIET / 10))
      now = self._read()
      if now is None:
        return False
      if (now["run"], now["beat"]) != (found["run"], found["beat"]):
        raise InputError(
          f"{self._remote} is in use by {now['holder']}. Wait for it to end, stop it,"
          " or give another --workdir."
        )
    return True

  def _beat(self) -> None:
    while not self._ended.wait(BEAT):
      # What cannot be read or written now may be when it is tried again.
      with contextlib.suppress(Exception):
        found = self._read()
        if found is not None and found["run"] != self._run:
          self._lost = found["holder"]
          return
        self._write()


def _name_machine() -> str:
  """Names what the numbers of processes are unique in: a boot, and a container."""
  parts = [socket.gethostname()]
  with contextlib.suppress(OSError):  # only Linux has them
    parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    parts.append(os.readlink("/proc/self/ns/pid"))
  return " ".join(parts)


def _is_gone(found: dict[str, Any]) -> bool:
  """Returns whether a note is of a process of this machine that runs no more."""
  if found["machine"] != _name_machine():
    return False
  if found["process"] == os.getpid():
    return True  # an earlier run of this process
  try:
    os.kill(int(found["process"]), 0)
  except ProcessLookupError:
    return True
  except (OSError, OverflowError, ValueError, TypeError):
    return False
  return False
