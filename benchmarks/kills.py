"""Kills and stops every stage that writes at random moments, and compares the bytes.

    nice -n 15 python -m benchmarks.kills --kills=1000 --stops=200
    python -m benchmarks.kills --table

One run after the other is started, in one process or in two, and hit by SIGKILL,
SIGTERM or Ctrl-C (SIGINT). Half of the moments are drawn evenly over the seconds of an
unbroken run, the others over the changes that it makes to its folder, with up to 0.03 s
after the change. A run that was hit is started again, and hit again, until one ends;
then every file of the workdir has to be the same, byte for byte, as after an unbroken
run of as many processes, with none missing and none left over. Of two processes SIGKILL
hits one, drawn, and the other has to end by itself; a stop hits one or both.

Stages take turns. Each has a log, docs/logs/kills/<stage>.txt, with one line for each
hit; the script goes on from what the logs hold. Tiny bases (LLaVA's, one of native
resolution, one of tiles), small pools, real processes and commands.
"""

import argparse
import collections
import contextlib
import itertools
import os
import pathlib
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from benchmarks import kill_logs
from benchmarks.kill_logs import count, find_log
from benchmarks.killed_stages import CHAINS, Chain
from tests import small_run
from tests.real_processes import Forked, fork_many, write_config

PATIENCE = 300  # seconds, after which a run is taken to hang
TURN = 5  # hits of a stage before the next one has its turn
STATUSES = {signal.SIGTERM: 143, signal.SIGINT: 130}
# Not of the results: logs, times, orbax's checkpoints (which hold times), the lock.
SKIPPED = ("log.txt", ".lock", "checkpoints", "logs", "times.json")
# Files of a comparison that state seconds, and the hashes of those files.
TIMED = {
  f"compare/{name}"
  for name in ("compare.html", "costs.json", "provenance.json", "table.md")
}


def read_results(work: pathlib.Path) -> dict[str, bytes]:
  """Contents of the files that an unbroken run makes the same at each time, by name."""
  found = small_run.read_bytes(work, SKIPPED)
  return {name: content for name, content in found.items() if name not in TIMED}


class Stage:
  """One command with the workdir as it finds it, and as an unbroken run leaves it.

  Attributes:
    name: of the log.
    wanted: contents of all files after an unbroken run.

  Args:
    name: of the log.
    command: of the command line.
    work: the workdir, in which the commands before have been run.
    config: a config file.
    count: of processes.
  """

  def __init__(
    self, name: str, command: str, work: pathlib.Path, config: pathlib.Path, count: int
  ):
    self.name, self.command, self.count = name, command, count
    self._work, self._config = work, config
    self._before = work.parent / f"before {name} {count}"
    shutil.copytree(work, self._before, symlinks=True)
    self._run()  # compiles
    self.wanted = read_results(work)
    self.restore()
    self._changes, self._seconds = self._run()
    different = self.compare()
    assert not different, f"two unbroken runs of {name} differ: {different}"
    self._after = work.parent / f"after {name} {count}"
    shutil.copytree(work, self._after, symlinks=True)

  def restore(self, after: bool = False) -> None:
    """Makes the workdir as it was before the command, or after an unbroken run."""
    shutil.rmtree(self._work, ignore_errors=True)
    shutil.copytree(self._after if after else self._before, self._work, symlinks=True)

  def _run(self) -> tuple[int, float]:
    """Runs the command without a hit; the changes to the folder, and the seconds."""
    processes, begun = self.start(meet=True), time.monotonic()
    seen, changes = self._look(), 0
    while any(process.poll() is None for process in processes):
      seen, before = self._look(), seen
      changes += seen != before
      time.sleep(0.002)
    ended = [process.end(PATIENCE) for process in processes]
    assert all(status == 0 for status, _ in ended), ended
    return changes, time.monotonic() - begun

  def _look(self) -> set[tuple[str, int]]:
    """The files of the workdir, with their sizes."""
    found = set()
    for folder, _, names in os.walk(self._work):  # goes on where a folder is gone
      for name in names:
        path = os.path.join(folder, name)
        with contextlib.suppress(FileNotFoundError):
          found.add((path, os.lstat(path).st_size))
    return found

  def start(self, meet: bool) -> list[Forked]:
    """Starts the run.

    Args:
      meet: whether to wait until it makes something. Before, two processes wait up to
        five minutes for each other, and one does not listen to signals yet.
    """
    while True:
      processes = (
        [Forked(self._work, self._config, self.command)]
        if self.count == 1
        else fork_many(self.count, self._work, self._config, self.command)
      )
      if not meet:
        return processes
      while all(process.poll() is None for process in processes):
        if re.search("making|unchanged", processes[0].said()):
          return processes
        time.sleep(0.005)
      if "cannot listen on port" not in processes[0].said():
        return processes
      for process in processes:  # another program has taken the port
        process.kill()
        process.end(PATIENCE)

  def hit(
    self, number: signal.Signals, rng: np.random.Generator, fresh: bool
  ) -> tuple[str, bool]:
    """Runs the command and sends it a signal.

    Args:
      number: the signal.
      rng: of the moment, and of the process.
      fresh: whether there is nothing to go on from.

    Returns:
      What happened, and whether the run ended with nothing left to do.
    """
    early = self.count == 1 and number == signal.SIGKILL and rng.random() < 0.2
    processes = self.start(meet=not early)
    moment = self._wait(processes, rng)
    if fresh and not early and processes[0].poll() == 0:
      self._seconds = min(self._seconds, moment)  # the machine is less busy now
    hits = processes
    if number == signal.SIGKILL or rng.random() < 0.5:
      hits = [processes[rng.integers(self.count)]]
    for process in hits:
      if process.poll() is None:
        process.send(number)
    begun = time.monotonic()
    ended = [process.end(PATIENCE) for process in processes]
    statuses = [status for status, _ in ended]
    waited = time.monotonic() - begun
    whom = "all" if len(hits) == self.count else str(processes.index(hits[0]))
    text = f"{number.name} to {whom} of {self.count}, {moment:.2f} s: {statuses}"
    text += f" after {waited:.1f} s"
    if any(statuses) and not self._may_end(number, statuses):
      said = [said.replace(str(self._work), "WORKDIR") for _, said in ended]
      text += f" FAULT\n{said}"
    return text, not any(statuses)

  def _may_end(self, number: signal.Signals, statuses: list[int]) -> bool:
    """Whether a signal may lead to these exit statuses."""
    if number == signal.SIGKILL:
      return -signal.SIGKILL in statuses
    return set(statuses) <= {0, STATUSES[number]}

  def _wait(self, processes: list[Forked], rng: np.random.Generator) -> float:
    """Waits until a drawn moment, or until the run ends; the seconds until then."""

    def running():
      return all(process.poll() is None for process in processes)

    begun = time.monotonic()
    if rng.random() < 0.5:
      seconds = rng.uniform(0, 1.1 * self._seconds)
      while running() and time.monotonic() - begun < seconds:
        time.sleep(0.001)
    else:
      wanted, seen, changes = rng.integers(self._changes + 2), self._look(), 0
      while running() and changes < wanted:
        seen, before = self._look(), seen
        changes += seen != before
        if time.monotonic() - begun > 3 * self._seconds + 60:
          break
      time.sleep(rng.uniform(0, 0.03))
    return time.monotonic() - begun

  def compare(self) -> str:
    """What differs from the unbroken run; "" if nothing does."""
    found = read_results(self._work)
    differing = [
      name
      for name in sorted(found.keys() | self.wanted.keys())
      if found.get(name) != self.wanted.get(name)
    ]
    return ", ".join(differing)


def draw_signal(counts: collections.Counter, most: dict[str, int]) -> signal.Signals:
  """The signal that is furthest from how often it is to be sent to a stage."""
  names = ("SIGKILL", "SIGTERM", "SIGINT")
  left = {name: most[name] - counts[name] for name in names}
  name = max(names, key=lambda name: left[name] / max(most[name], 1))
  return signal.Signals[name]


def hit_often(
  stage: Stage, turn: int, most: dict[str, int], log: pathlib.Path, seed: int
) -> None:
  """Hits a stage so many times, and lets the last run end; writes each to the log."""
  rng = np.random.default_rng(seed)
  stage.restore()
  hits, ended = 0, True
  with open(log, "a", buffering=1) as file:
    while hits < turn or not ended:
      if hits < turn:
        number = draw_signal(count(log), most)
        text, ended = stage.hit(number, rng, ended)
        if not ended:
          hits += 1
          print(f"hit: {text}", file=file)
      else:
        processes = stage.start(meet=True)
        statuses = [process.end(PATIENCE) for process in processes]
        ended = not any(status for status, _ in statuses)
        if not ended:
          print(f"FAULT: the run after the last hit: {statuses}", file=file)
          break
      if ended:
        different = stage.compare()
        how = f"FAULT: differs in {different}" if different else "the same bytes"
        of = f"{len(stage.wanted)} files, {stage.count} process(es)"
        print(f"ended: {how}, {of}", file=file)
        stage.restore()


def make_stages(
  chain: Chain, place: pathlib.Path, names: list[str], counts: tuple[int, ...]
) -> Iterator[Stage]:
  """Runs a chain, and yields those of its stages that are to be hit.

  A stage may be hit as soon as it is there, and later.

  A command that fails without being hit ends it with an AssertionError.
  """
  place.mkdir()
  base, settings = chain.prepare(place)
  config, work = write_config(place / "config.py", base, **settings), place / "work"
  work.mkdir()
  last = max((i for i, name in enumerate(chain.commands) if name in names), default=-1)
  for name, command in list(chain.commands.items())[: last + 1]:
    if name in names:
      for number in counts:
        stage = Stage(name, command, work, config, number)
        yield stage
        stage.restore(after=number == counts[-1])
    else:
      status, said = Forked(work, config, command).end(PATIENCE)
      assert status == 0, said


def take_turns(
  stages: list[Stage], most: dict[str, int], until: float, seeds: Iterator[int]
) -> bool:
  """Gives each stage that has hits left a turn; whether there was one, and time."""
  open_stages = []
  for stage in stages:
    counts = count(find_log(stage.name))
    if any(counts[name] < most[name] for name in most):
      open_stages.append(stage)
  for stage in open_stages:
    if time.monotonic() > until:
      return False
    hit_often(stage, TURN, most, find_log(stage.name), next(seeds))
  return bool(open_stages)


def list_names() -> list[str]:
  """The names of all stages that can be hit."""
  return [
    name for chain in CHAINS.values() for name in chain.commands if name[0] != "-"
  ]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--kills", type=int, default=1000, help="over all stages")
  parser.add_argument("--stops", type=int, default=200, help="over all stages")
  parser.add_argument("--minutes", type=float, default=1e9, help="at most")
  parser.add_argument("--stages", default=",".join(list_names()))
  parser.add_argument("--seed", type=int, default=int(time.time()))
  parser.add_argument("--table", action="store_true", help="of what the logs hold")
  arguments = parser.parse_args()
  if arguments.table:
    print(kill_logs.format_table(list_names()))
    return
  names = arguments.stages.split(",")
  signal.signal(signal.SIGINT, signal.default_int_handler)  # "&" lets it be ignored
  kill_logs.LOGS.mkdir(parents=True, exist_ok=True)
  share = -(-arguments.kills // len(names))
  stops = -(-arguments.stops // (2 * len(names)))
  most = {"SIGKILL": share, "SIGTERM": stops, "SIGINT": stops}
  until = time.monotonic() + 60 * arguments.minutes
  seeds = itertools.count(arguments.seed)
  with tempfile.TemporaryDirectory() as place:
    stages: list[Stage] = []
    for chain_name, chain in CHAINS.items():
      for stage in make_stages(chain, pathlib.Path(place) / chain_name, names, (1, 2)):
        take_turns([stage], most, until, seeds)
        stages.append(stage)
    while take_turns(stages, most, until, seeds):
      pass
  print(kill_logs.format_table(list_names()))


if __name__ == "__main__":
  main()
