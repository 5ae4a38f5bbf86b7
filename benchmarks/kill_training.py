"""Training, killed (SIGKILL) at random points, comes out byte for byte the same.

    python -m benchmarks.kill_training [--kills=100] > docs/logs/kill_training.txt

Half of the kills hit a run of one process, half one of two processes on this
machine; there one of the two, drawn, is killed, and the other has to end by itself.
Once they have met, the point is drawn evenly over the checkpoints that are still to
be written, the time before the next and the export of the model included, and up to
0.1 s later. A killed run is started again, and killed again, until it ends; then every
file of `seed/`, the model's weights among them, is compared with those of an unbroken
run of as many processes. Tiny base, drawn pool, real processes, the real command
`seed`, a checkpoint every step.
"""

import argparse
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time

import numpy as np

from tests import small_run
from tests.models import tiny
from tests.real_processes import Forked, fork_many, write_config

PATIENCE = 300  # seconds, after which a run is taken to hang
STEPS = 12


class Case:
  """Runs of some number of processes over one checked pool.

  Args:
    count: of processes.
    folder: the workdir, with the checked pool.
    config: a config file.
  """

  def __init__(self, count: int, folder: pathlib.Path, config: pathlib.Path):
    self.count, self.folder, self.config = count, folder, config
    self.partial = folder / "seed.partial"
    self.clear()
    self.finish(self.meet())  # compiles
    self.clear()
    begun = time.monotonic()
    self.finish(self.meet())
    self.seconds = time.monotonic() - begun
    self.wanted = small_run.read_bytes(folder / "seed")
    assert "hf/model.safetensors" in self.wanted
    assert self.wanted["metrics.jsonl"].count(b"\n") == STEPS

  def clear(self) -> None:
    for path in self.folder.glob("seed*"):
      shutil.rmtree(path)

  def start(self) -> list[Forked]:
    if self.count == 1:
      return [Forked(self.folder, self.config, "seed")]
    return fork_many(self.count, self.folder, self.config, "seed")

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

  def written(self) -> int:
    """Steps whose checkpoint is on disk; all, once the model is being written."""
    if (self.folder / "seed").exists() or (self.partial / "hf").exists():
      return STEPS
    names = [path.name for path in self.partial.glob("checkpoints/*")]
    return max((int(name) for name in names if name.isdigit()), default=0)

  def where(self) -> str:
    """How far the run had come when it was killed."""
    if (self.folder / "seed").exists():
      return "the model is there"
    if (self.partial / "hf").exists():
      return "writing the model"
    torn = any(self.partial.glob("checkpoints/*tmp*"))
    text = f"{self.written()} of {STEPS} checkpoints written"
    return f"{text}, one half" if torn else text

  def wait(self, processes: list[Forked], rng: np.random.Generator) -> None:
    """Waits until the point of the next kill, or until the run ends."""

    def running():
      return all(process.poll() is None for process in processes)

    def pause(seconds):
      until = time.monotonic() + seconds
      while running() and time.monotonic() < until:
        time.sleep(0.001)

    written = self.written()
    wanted = rng.integers(written, STEPS + 1)
    if wanted == written:
      pause(rng.uniform(0, self.seconds))
      return
    while running() and self.written() < wanted:
      time.sleep(0.001)
    pause(rng.uniform(0, 0.1))

  def check(self) -> None:
    """All files are the unbroken run's, and no half of a checkpoint is left."""
    found = small_run.read_bytes(self.folder / "seed")
    wrong = [
      name
      for name in sorted(found.keys() | self.wanted.keys())
      if found.get(name) != self.wanted.get(name)
    ]
    assert not wrong, f"differ from the unbroken run: {wrong}"
    left = [path.name for path in (self.folder / "seed/checkpoints").iterdir()]
    assert left == [str(STEPS)], left


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


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    overrides = {"pool.demo.rows": 60, "seed.rows": str(4 * STEPS), "seed.batch": 4}
    overrides |= {"seed.save_every": 1}
    config = write_config(place / "config.py", base, **overrides)
    status, said = Forked(place / "work", config, "check").end(PATIENCE)
    assert status == 0, said
    for count in (1, 2):
      case = Case(count, place / "work", config)
      kill_often(case, arguments.kills // 2, rng)


if __name__ == "__main__":
  sys.exit(main())
