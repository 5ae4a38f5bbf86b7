"""How the seconds of a selection grow with the pool, as a plot.

    python -m benchmarks.growth --out=docs/selection_growth.png

Pools of 10,000 rows and more, each `--factor` times the one before, up to what is
listed in TRIALS. `kl` and `random` have up to 5,000 groups with a long tail of sizes;
strategies that read embeddings, of 64 dimensions, have as many as k-means makes by
default. Seconds are of processor time, of all cores together; compiling is not
measured, since a selection is made twice, but for pools of a million rows and more. The
slope is that of log seconds over log rows by least squares, over pools of 100,000 rows
or more.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

from benchmarks.selection import make_pool
from mllm_selector_jax.selection import options, strategies
from mllm_selector_jax.selection.kmeans import default_clusters

matplotlib.use("Agg")

WIDTH = 64
LARGE = 1_000_000


class Trial(NamedTuple):
  """The rows of the largest pool, and what is selected."""

  rows: int = 10_240_000
  budget: str = "10%"
  within: str = "uniform"


TRIALS = {
  "kl": Trial(),
  "random": Trial(),
  "semdedup": Trial(),
  "k_center": Trial(budget="1000"),
  "kl, within=cover": Trial(1_280_000, within="cover"),
  "d2": Trial(1_280_000),
  "facility_location": Trial(1_280_000),
}


def measure(name: str, trial: Trial, rows: int, repeats: int) -> float:
  """Median seconds of a selection."""
  strategy = strategies.STRATEGIES[name.partition(",")[0]]
  reads = strategy.embeddings or trial.within == "cover"
  if reads:
    pool = make_pool(
      rows, default_clusters(rows), WIDTH, set(strategy.signals), power=0.5
    )
  else:
    pool = make_pool(rows, min(5000, rows // 8), 0, set(strategy.signals))
  settings = options.SelectOptions(name.partition(",")[0], within=trial.within)
  seconds = []
  for _ in range(repeats + (rows < LARGE)):  # the first compiles
    begun = time.process_time()
    strategies.select(*pool, trial.budget, 0, settings)
    seconds.append(time.process_time() - begun)
  return statistics.median(seconds[-repeats:])


def find_slope(sizes: list[int], seconds: list[float]) -> float:
  large = np.array(sizes) >= 100_000
  return np.polyfit(np.log(sizes)[large], np.log(seconds)[large], 1)[0]


def plot(curves: dict[str, tuple[list[int], list[float]]], out: str) -> None:
  """Draws the seconds of each trial over the rows."""
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(figsize=(8.4, 4.4), layout="constrained")
  for name, (sizes, seconds) in curves.items():
    label = f"{name} (slope {find_slope(sizes, seconds):.2f})"
    axes.loglog(sizes, seconds, "o-", markersize=3, label=label)
  axes.set_xlabel("rows of the pool")
  axes.set_ylabel("seconds of a selection, of CPU")
  axes.grid(alpha=0.3)
  figure.legend(frameon=False, loc="outside right upper")
  figure.savefig(Path(out), dpi=130)
  print(f"wrote {out}")


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--out", default="docs/selection_growth.png")
  parser.add_argument("--trials", default=";".join(TRIALS))
  parser.add_argument("--factor", type=float, default=4)
  parser.add_argument("--repeats", type=int, default=1)
  arguments = parser.parse_args()

  curves = {}
  for name in arguments.trials.split(";"):
    trial = TRIALS[name]
    sizes, seconds, rows = [], [], 10_000
    while rows <= trial.rows:
      sizes.append(rows)
      seconds.append(measure(name, trial, rows, arguments.repeats))
      print(f"{name} {rows:,}: {seconds[-1]:.3f} s", flush=True)
      rows = round(rows * arguments.factor)
    print(f"{name}: slope {find_slope(sizes, seconds):.2f}", flush=True)
    curves[name] = sizes, seconds
  plot(curves, arguments.out)


if __name__ == "__main__":
  main()
