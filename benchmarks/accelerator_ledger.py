"""Keeps the figures measured on an accelerator in a file, and runs what is left.

A measurement is a case, which runs in a process of its own: it has the device's memory
to itself, a crash ends it alone, and it can be stopped. Its figures are appended to the
file together, one JSON line each, so that a case is there whole or not at all:

    {"case": "scoring/7b/B1", "figure": "samples_s", "value": 41.2}
    {"case": "scoring/7b/B1", "state": "done", "seconds": 212.0, "machine": {...}}

A later call passes over cases that are done or have failed. One that had to be stopped
runs again, from where it was if it can go on, and else from its start, once there is
more time than it had; if it could not be finished in two whole calls, it is given up.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
UNFINISHED = 75  # exit status: call again
MOST_STOPS = 2  # of a case that begins anew each time and had a whole call
WHOLE = 0.9  # of a call's time, which counts as all of it
_RUNNING: set[subprocess.Popen] = set()
GRACE = 15.0  # seconds that a stopped case has to save what it can go on from


class Case(NamedTuple):
  """One measurement.

  Attributes:
    key: its name in the file; it begins with the command.
    settings: what its process is given; plain JSON. "environment" holds variables.
    seconds: what it is expected to take; it begins only if so much time is left.
    resumes: whether a stopped one goes on from where it was.
  """

  key: str
  settings: dict[str, Any]
  seconds: float
  resumes: bool = False


class Ledger:
  """The lines of a file, to which cases are appended whole."""

  def __init__(self, path: Path):
    self.path, self._lock = path, threading.Lock()
    self.lines = list(read_lines(path))

  def state(self, key: str) -> str:
    """What became of a case: "", "done", "failed" or "stopped"."""
    states = [
      line["state"] for line in self.lines if line["case"] == key if "state" in line
    ]
    return states[-1] if states else ""

  def is_over(self, case: Case) -> bool:
    """Whether a case needs no other call."""
    lines = [line for line in self.lines if line["case"] == case.key]
    over = {"done", "failed"} & {line.get("state") for line in lines}
    stops = sum(line.get("had_whole_call", False) for line in lines)
    return bool(over) or (not case.resumes and stops >= MOST_STOPS)

  def expected(self, case: Case) -> float:
    """Seconds that a case should be given: more than those after which it stopped."""
    lines = [line for line in self.lines if line["case"] == case.key]
    stops = [line["seconds"] for line in lines if line.get("state") == "stopped"]
    return (
      case.seconds if case.resumes else max([case.seconds, *(1.5 * s for s in stops)])
    )

  def append(self, lines: list[dict[str, Any]]) -> None:
    """Writes the lines of a case at once."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    with self._lock, self.path.open("a") as file:
      if file.tell() and not self.path.read_bytes().endswith(b"\n"):
        text = "\n" + text  # a line that was cut off stays one
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
      self.lines += lines


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
  """The file's lines; one that was cut off is passed over."""
  for text in path.read_text().splitlines() if path.exists() else ():
    try:
      yield json.loads(text)
    except json.JSONDecodeError:
      print(f"{path}: passes over a line that was cut off", file=sys.stderr)


def read_figures(path: Path) -> dict[str, dict[str, Any]]:
  """Figures by case, with what became of it as "state"; cases in the file's order."""
  found: dict[str, dict[str, Any]] = {}
  for line in read_lines(path):
    figures = found.setdefault(line["case"], {})
    if "figure" in line:
      figures[line["figure"]] = line["value"]
    else:
      figures.update({key: line[key] for key in line if key != "case"})
  return found


def run(
  cases: list[Case],
  ledger: Ledger,
  limit: float,
  work: Path,
  parallel: int,
  again: bool,
) -> int:
  """Runs the cases that are not over, in order.

  Args:
    cases: all of the command's.
    ledger: what is measured already, and gets what is.
    limit: seconds, by which this returns.
    work: a folder for logs, compiled programs, and what cases go on from.
    parallel: cases at the same time.
    again: whether cases that failed or were given up run once more.

  Returns:
    The exit status: 0, 1 if cases failed, `UNFINISHED` if the call is to be repeated.
  """
  end = time.monotonic() + limit
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, _end_all)
  (work / "logs").mkdir(parents=True, exist_ok=True)
  left = [
    case
    for case in cases
    if not ledger.is_over(case) or (again and ledger.state(case.key) != "done")
  ]

  def attempt(case: Case) -> None:
    remaining = end - time.monotonic() - GRACE
    # One that needs more than any call has is tried as the first of a call.
    needed = min(ledger.expected(case), WHOLE * (limit - GRACE))
    if remaining < needed:
      print(
        f"{case.key}: waits for the next call; {max(remaining, 0):.0f} s are left, it"
        f" takes about {needed:.0f} s",
        flush=True,
      )
      return
    _run_case(case, ledger, end, limit, work)

  with futures.ThreadPoolExecutor(parallel) as threads:
    for done in [threads.submit(attempt, case) for case in left]:
      done.result()
  waiting = [case.key for case in cases if not ledger.is_over(case)]
  failed = [case.key for case in cases if ledger.state(case.key) == "failed"]
  print(
    f"{len(cases) - len(waiting)} of {len(cases)} cases are over; figures in"
    f" {ledger.path}" + ("; failed: " + ", ".join(failed) if failed else "")
  )
  if waiting:
    return UNFINISHED
  return 1 if failed else 0


def find_platform() -> str:
  """What jax runs on, "cpu" or another; asked in a process that ends at once."""
  script = "import jax; print(jax.default_backend())"
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
  )
  return done.stdout.split()[-1]


def _run_case(case: Case, ledger: Ledger, end: float, limit: float, work: Path) -> None:
  begun = time.monotonic()
  log = work / "logs" / (case.key.replace("/", "-") + ".txt")
  with tempfile.TemporaryDirectory() as folder, log.open("a") as said:
    result = Path(folder) / "figures.jsonl"
    command = [sys.executable, "-m", "benchmarks.accelerator", "case"]
    command += [json.dumps([case.key, case.settings]), str(result), str(work)]
    process = subprocess.Popen(
      command,
      stdout=said,
      stderr=said,
      cwd=ROOT,
      env=_environment(work) | case.settings.get("environment", {}),
      start_new_session=True,  # so that what it starts can be killed with it
    )
    _RUNNING.add(process)
    try:
      status, stopped = _wait(process, end)
    finally:
      _kill(process)
    lines = list(read_lines(result))
  seconds = round(time.monotonic() - begun, 1)
  state: dict[str, Any] = {"case": case.key, "state": "done", "seconds": seconds}
  if status and stopped:
    state["state"], lines = "stopped", []
    state["had_whole_call"] = seconds >= WHOLE * (limit - GRACE)
  elif status:
    state["state"], state["error"] = "failed", _last_line(log)
  print(f"{case.key}: {state['state']} after {seconds} s", flush=True)
  machine = [line.pop("machine") for line in lines if "machine" in line]
  state |= {"machine": machine[0]} if machine else {}
  ledger.append([{"case": case.key, **line} for line in lines if line] + [state])


def _wait(process: subprocess.Popen, end: float) -> tuple[int, bool]:
  """The exit status, and whether the process had to be stopped."""
  try:
    return process.wait(max(1.0, end - GRACE - time.monotonic())), False
  except subprocess.TimeoutExpired:
    process.terminate()
  try:
    return process.wait(max(1.0, end - time.monotonic())), True
  except subprocess.TimeoutExpired:
    _kill(process)
    return process.wait(), True


def _kill(process: subprocess.Popen) -> None:
  """Kills what is left of a case: its process, and those that this has started."""
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)
  _RUNNING.discard(process)


def _end_all(number: int, _: Any) -> None:
  """Handles a signal to the call: no case outlives it."""
  for process in list(_RUNNING):
    _kill(process)
  os._exit(128 + number)


def _environment(work: Path) -> dict[str, str]:
  """Compiled programs are kept, and jax takes memory as it needs it, beside torch."""
  return {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": os.pathsep.join(
      [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    ),
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "JAX_COMPILATION_CACHE_DIR": str(work / "compiled"),
    "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
  }


def _last_line(log: Path) -> str:
  lines = [
    line for line in log.read_text(errors="replace").splitlines() if line.strip()
  ]
  return lines[-1][:500] if lines else ""
