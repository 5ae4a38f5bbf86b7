"""Kills a stage's run at random points until so many kills are done, and compares."""

import abc
import argparse
import pathlib
import re
import shutil
import signal
import tempfile
import time
from typing import Any

import numpy as np

from tests import small_run
from tests.models import tiny
from tests.real_processes import Forked, fork_many, write_config

PATIENCE = 300  # seconds, after which a run is taken to hang


class Case(abc.ABC):
  """Runs of one stage by some number of processes over one checked pool.

  Attributes:
    command: the stage.
    artifact: what it leaves in the workdir.
    total: pieces that an unbroken run writes; its files are in `wanted`.

  Args:
    count: of processes.
    folder: the workdir, with the checked pool.
    config: a config file.
  """

  command: str
  artifact: str
  total: int

  def __init__(self, count: int, folder: pathlib.Path, config: pathlib.Path):
    self.count, self.folder, self.config = count, folder, config
    self.partial = folder / f"{self.artifact}.partial"
    self.clear()
    self.finish(self.meet())  # compiles
    self.clear()
    begun = time.monotonic()
    self.finish(self.meet())
    self.seconds = time.monotonic() - begun
    self.wanted = small_run.read_bytes(folder / self.artifact)

  @abc.abstractmethod
  def written(self) -> int:
    """Pieces that are on disk."""

  @abc.abstractmethod
  def where(self) -> str:
    """How far the run had come when it was killed."""

  @abc.abstractmethod
  def check_more(self) -> None:
    """What a run that ended has to fulfil beside having the same files."""

  def clear(self) -> None:
    for path in self.folder.glob(f"{self.artifact}*"):
      shutil.rmtree(path)

  def start(self) -> list[Forked]:
    if self.count == 1:
      return [Forked(self.folder, self.config, self.command)]
    return fork_many(self.count, self.folder, self.config, self.command)

  def meet(self) -> list[Forked]:
    """Processes that make one run; a port that was taken meanwhile is given up."""
    while True:
      processes = self.start()
      # Before they have met, a killed one only keeps the other waiting for it.
      while all(process.poll() is None for process in processes):
        if re.search("making|unchanged", processes[0].said()):
          return processes
        time.sleep(0.005)
      if "cannot listen on port" not in processes[0].said():
        return processes
      for process in processes:
        process.kill()
        process.end(PATIENCE)

  def finish(self, processes: list[Forked]) -> None:
    ended = [process.end(PATIENCE) for process in processes]
    assert all(status == 0 for status, _ in ended), ended

  def wait(self, processes: list[Forked], rng: np.random.Generator) -> None:
    """Waits until the point of the next kill, or until the run ends."""

    def running():
      return all(process.poll() is None for process in processes)

    def pause(seconds):
      until = time.monotonic() + seconds
      while running() and time.monotonic() < until:
        time.sleep(0.001)

    written = self.written()
    wanted = rng.integers(written, self.total + 1)
    if wanted == written:
      pause(rng.uniform(0, self.seconds))
      return
    while running() and self.written() < wanted:
      time.sleep(0.001)
    pause(rng.uniform(0, 0.1))

  def check(self) -> None:
    """All files are the unbroken run's."""
    found = small_run.read_bytes(self.folder / self.artifact)
    wrong = [
      name
      for name in sorted(found.keys() | self.wanted.keys())
      if found.get(name) != self.wanted.get(name)
    ]
    assert not wrong, f"differ from the unbroken run: {wrong}"
    self.check_more()


def kill_often(case: Case, kills: int, rng: np.random.Generator) -> None:
  """Kills so many runs; every run that ends is compared."""
  done = ended = 0
  longest, broken = 0.0, False
  case.clear()
  while done < kills or broken:
    processes = case.meet()
    if done < kills:
      case.wait(processes, rng)
    else:
      case.finish(processes)
    victim = processes[rng.integers(len(processes))]
    victim.kill()
    begun = time.monotonic()
    statuses = [process.end(PATIENCE)[0] for process in processes]
    broken = -signal.SIGKILL in statuses
    if broken:
      longest = max(longest, time.monotonic() - begun)
      done += 1
      print(
        f"kill {done:3}: process {processes.index(victim)} of {case.count},"
        f" {case.where()}; exit statuses {statuses}",
        flush=True,
      )
    else:
      assert not any(statuses), [process.said() for process in processes]
      case.check()
      ended += 1
      case.clear()
  print(
    f"{case.count} process(es): {done} kills, {ended} runs ended, all byte for byte as"
    f" the unbroken one ({case.seconds:.1f} s), {len(case.wanted)} files; after a kill"
    f" the longest wait for the rest was {longest:.1f} s.",
    flush=True,
  )


def main(make: type[Case], doc: str, overrides: dict[str, Any]) -> None:
  """Half of the kills on one process, half on one of two; see the callers."""
  parser = argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--kills", type=int, default=100)
  parser.add_argument(
    "--seed", type=int, default=int(time.time()), help="of the points"
  )
  arguments = parser.parse_args()
  print(f"--kills={arguments.kills} --seed={arguments.seed}", flush=True)
  rng = np.random.default_rng(arguments.seed)
  with tempfile.TemporaryDirectory() as place:
    place = pathlib.Path(place)
    base = tiny.make_base(place / "base")
    if make.command == "score":
      overrides = {**overrides, "score.model": str(base)}
    config = write_config(place / "config.py", base, **overrides)
    status, said = Forked(place / "work", config, "check").end(PATIENCE)
    assert status == 0, said
    for count in (1, 2):
      kill_often(make(count, place / "work", config), arguments.kills // 2, rng)
