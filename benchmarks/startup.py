"""CPU seconds that short commands take, most of which go into imports.

  python -m benchmarks.startup                   # this checkout
  python -m benchmarks.startup --other=CHECKOUT  # and another one, with the ratio

Each command runs in processes of its own. Their user and system time is added up, and
the least of some runs counts, since other work on the machine only adds to it.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = 3


def write_pool(folder: Path) -> Path:
  """A pool of a few rows of text."""
  turns = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "red"}]
  rows = [{"id": str(number), "conversations": turns} for number in range(ROWS)]
  path = folder / "pool.json"
  path.write_text(json.dumps(rows))
  return path


def measure(checkout: Path, arguments: list[str]) -> float:
  """CPU seconds of one command line, carried out by the code of a checkout."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  subprocess.run(
    [sys.executable, "-m", "mllm_selector_jax.main", *arguments],
    cwd=checkout,
    env={**os.environ, "PYTHONPATH": str(checkout)},
    check=True,
    capture_output=True,
  )
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure_all(checkouts: list[Path], repeats: int) -> dict[str, list[float]]:
  """The least CPU seconds of each command by checkout, run by turns."""
  found: dict[str, list[float]] = {}
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    data, place = write_pool(folder), folder / "work"
    given = [
      "--config=demo",
      f"--workdir={place}",
      f"--config.pool.data={data}",
      f"--config.pool.images={folder}",
    ]
    # A second check keeps what the first one made, and prepare what check made.
    commands = {
      "--help": ["--help"],
      "check": ["check", *given],
      "check again": ["check", *given],
      "prepare": ["prepare", *given],
    }
    for _ in range(repeats):
      for number, checkout in enumerate(checkouts):
        shutil.rmtree(place, ignore_errors=True)
        for title, arguments in commands.items():
          least = found.setdefault(title, [float("inf")] * len(checkouts))
          least[number] = min(least[number], measure(checkout, arguments))
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--other", type=Path, help="a checkout to compare with")
  parser.add_argument("--repeats", type=int, default=3)
  options = parser.parse_args()
  checkouts = [ROOT, *([options.other.absolute()] if options.other else [])]
  for title, seconds in measure_all(checkouts, options.repeats).items():
    line = "  ".join(f"{value:6.2f} s" for value in seconds)
    ratio = f"  ratio {seconds[0] / seconds[1]:.2f}" if len(seconds) > 1 else ""
    print(f"{title:12} {line}{ratio}", flush=True)


if __name__ == "__main__":
  main()
