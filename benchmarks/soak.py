"""Memory, open files and threads of long runs, from their start to their end.

    nice -n 10 python -m benchmarks.soak --rows=10000000 --folder=DIR          # check
    nice -n 10 python -m benchmarks.soak --rows=1000000 --images=0 --folder=DIR
    nice -n 10 python -m benchmarks.soak --rows=1000000 --command=score --folder=DIR
    nice -n 10 python -m benchmarks.soak --rows=60000 --command=seed --folder=DIR

A pool of so many rows is written to DIR, nine of ten with one of `--images` images of
64 pixels (0 for one of its own), and the command is run on it with the demo's base;
`score` and `seed`, an epoch of training, follow a `check` of the same pool, which is
not watched. The command's process is looked at every few seconds, with its children:
anonymous memory (RssAnon) and memory of files that are mapped (RssFile, which the
system may drop), descriptors of files, threads, and the rows or steps that its progress
line tells. Told are the means of the first and of the last tenth of the looks between
5 % of them and the last one, the peaks, and the slope of anonymous memory over rows or
steps by least squares. DIR/<command>.csv holds every look, and DIR/<command>.png shows
them. DIR also holds the pool and the workdir, some GB for ten million rows.
"""

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float

from benchmarks import check

matplotlib.use("Agg")

ROOT = Path(__file__).absolute().parents[1]
SETTLED = 0.05  # share of the work after which growth counts
# What a progress line tells: rows or steps done of all, with three digits.
PROGRESS = r"{command}: +\d+%\|[^|]*\| ([\d.]+)([kM]?)/([\d.]+)([kM]?) \["
UNITS = {"": 1, "k": 1e3, "M": 1e6}


class Look(NamedTuple):
  """What a command and its children hold at one moment.

  Attributes:
    seconds: since the start.
    done: rows or steps.
    total: as many as there are; 0 before the first are done.
    anonymous: bytes of memory that are no file's.
    mapped: bytes of mapped files in memory.
    files: open descriptors.
    threads: of all processes.
    processes: the command and its children.
  """

  seconds: float
  done: int
  total: int
  anonymous: int
  mapped: int
  files: int
  threads: int
  processes: int


def write_pool(folder: Path, rows: int, images: int) -> dict[str, str]:
  """Writes the pool that `benchmarks/check.py` draws; the settings that name it."""
  data = str(folder / "pool.json")
  check.write_pool(data, rows, images, text_share=0.1)
  check.write_images(str(folder), images or rows)
  return {"pool.data": data, "pool.images": str(folder)}


def make_command(command: str, folder: Path, settings: dict[str, str]) -> list[str]:
  given = [f"--config.{key}={value}" for key, value in settings.items()]
  return [
    *(sys.executable, "-m", "mllm_selector_jax.main", command),
    *("--config=demo", f"--workdir={folder / 'work'}"),
    *given,
  ]


def list_processes(first: int) -> list[int]:
  """A process and all its descendants."""
  found = [first]
  for one in found:
    try:
      for task in os.listdir(f"/proc/{one}/task"):
        children = Path(f"/proc/{one}/task/{task}/children").read_text()
        found += map(int, children.split())
    except OSError:
      continue
  return found


def look(first: int, seconds: float, done: int, total: int) -> Look | None:
  """Looks at a process and its children; None when it is gone."""
  held = {"RssAnon": 0, "RssFile": 0, "Threads": 0}
  files, processes = 0, list_processes(first)
  for one in processes:
    try:
      status = Path(f"/proc/{one}/status").read_text()
      files += len(os.listdir(f"/proc/{one}/fd"))
    except OSError:
      continue
    for line in status.splitlines():
      name, _, value = line.partition(":")
      if name in held:
        held[name] += int(value.split()[0])
  if not held["Threads"]:
    return None
  anonymous, mapped = held["RssAnon"] << 10, held["RssFile"] << 10
  threads = held["Threads"]
  return Look(seconds, done, total, anonymous, mapped, files, threads, len(processes))


def watch(name: str, command: list[str], said: Path, every: float) -> list[Look]:
  """Runs a command of this name and looks at it; SystemExit if it fails."""
  progress = re.compile(PROGRESS.format(command=name))
  looks, begun = [], time.monotonic()
  with open(said, "w") as file:
    process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
  while process.poll() is None:
    found = progress.findall(said.read_text(errors="replace"))
    of = found[-1] if found else ("0", "", "0", "")
    done, total = (round(float(of[n]) * UNITS[of[n + 1]]) for n in (0, 2))
    seen = look(process.pid, time.monotonic() - begun, done, total)
    if seen is not None:
      looks.append(seen)
    time.sleep(every)
  if process.returncode:
    raise SystemExit(f"exit status {process.returncode}: {said.read_text()[-2000:]}")
  return looks


def describe(looks: list[Look]) -> str:
  """The table of what the run held at its start and at its end."""
  settled = [one for one in looks if SETTLED * one.total <= one.done < one.total]
  part = max(1, len(settled) // 10)
  lines = [
    f"{len(looks)} looks in {looks[-1].seconds / 60:.0f} min, "
    f"{len(settled)} between {SETTLED:.0%} of the rows or steps and the last",
    "| | first tenth | last tenth | peak |",
    "|---|---|---|---|",
  ]
  units = {"anonymous": 1e6, "mapped": 1e6}
  for name in ("anonymous", "mapped", "files", "threads", "processes"):
    seen = np.array([getattr(one, name) for one in settled]) / units.get(name, 1)
    peak = max(getattr(one, name) for one in looks) / units.get(name, 1)
    told = f"{name}, MB" if name in units else name
    first, last = seen[:part].mean(), seen[-part:].mean()
    lines.append(f"| {told} | {first:,.1f} | {last:,.1f} | {peak:,.1f} |")
  slope = fit_slope(settled)
  lines.append(f"anonymous memory: {slope:.2f} bytes a row or step")
  return "\n".join(lines)


def fit_slope(looks: list[Look]) -> float:
  """Bytes of anonymous memory a row or step, by least squares."""
  done = np.array([one.done for one in looks], np.float64)
  held: Float[np.ndarray, " looks"] = np.array([one.anonymous for one in looks], float)
  done -= done.mean()
  return float(done @ held / (done @ done))


def draw(looks: list[Look], path: Path) -> None:
  """Plots memory, descriptors and threads over the minutes."""
  from matplotlib import pyplot as plt

  minutes = [one.seconds / 60 for one in looks]
  figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 5))
  for name in ("anonymous", "mapped"):
    above.plot(minutes, [getattr(one, name) / 1e6 for one in looks], label=name)
  above.set_ylabel("MB")
  for name in ("files", "threads"):
    below.plot(minutes, [getattr(one, name) for one in looks], label=name)
  below.set_ylabel("number")
  below.set_xlabel("minutes")
  for axes in (above, below):
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
  figure.tight_layout()
  figure.savefig(path, dpi=110)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--rows", type=int, default=10_000_000)
  parser.add_argument("--images", type=int, default=1000, help="distinct ones")
  parser.add_argument("--command", choices=("check", "score", "seed"), default="check")
  parser.add_argument("--folder", type=Path, required=True)
  parser.add_argument("--every", type=float, default=2.0, help="seconds")
  arguments = parser.parse_args()
  folder = arguments.folder.absolute()
  folder.mkdir(parents=True, exist_ok=True)
  settings = write_pool(folder, arguments.rows, arguments.images)
  shutil.rmtree(folder / "work", ignore_errors=True)
  if arguments.command == "score":
    settings["score.model"] = "demo"
  if arguments.command != "check":
    subprocess.run(make_command("check", folder, settings), cwd=ROOT, check=True)
  name = arguments.command
  command = make_command(name, folder, settings)
  looks = watch(name, command, folder / f"{name}.txt", arguments.every)
  with open(folder / f"{name}.csv", "w", newline="") as file:
    csv.writer(file).writerows([Look._fields, *looks])
  draw(looks, folder / f"{name}.png")
  print(describe(looks))


if __name__ == "__main__":
  main()
