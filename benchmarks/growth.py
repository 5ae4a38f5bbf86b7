"""How the seconds of a selection grow with the pool, as a plot.

    python benchmarks/growth.py --out=docs/selection_growth.png

Pools of 10,000 rows and more, each `--factor` times the one before, up to what is
listed in MOST; groups are 5,000 or an eighth of the rows if that is less. The slope is
that of log seconds over log rows by least squares, over pools of 100,000 rows or more.
"""

import argparse
import statistics
import time
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.selection import make_pool
from mllm_selector_jax.selection import options, strategies

matplotlib.use("Agg")

# Strategy -> rows of the largest pool; those that read embeddings have 64 numbers.
MOST = {
  "kl": 10_240_000,
  "random": 10_240_000,
  "d2": 320_000,
  "k_center": 320_000,
  "facility_location": 320_000,
}


def measure(name: str, rows: int, repeats: int) -> float:
  """Median seconds of a selection of a tenth."""
  strategy = strategies.STRATEGIES[name]
  width = 64 if strategy.embeddings else 0
  groups = min(5000, rows // 8)
  scores, grouping = make_pool(rows, groups, width, set(strategy.signals))
  seconds = []
  for _ in range(repeats + 1):  # the first compiles
    begun = time.perf_counter()
    strategies.select(scores, grouping, "10%", 0, options.SelectOptions(name))
    seconds.append(time.perf_counter() - begun)
  return statistics.median(seconds[1:])


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--out", default="docs/selection_growth.png")
  parser.add_argument("--strategies", default=",".join(MOST))
  parser.add_argument("--factor", type=float, default=2)
  parser.add_argument("--repeats", type=int, default=3)
  arguments = parser.parse_args()
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
  for name in arguments.strategies.split(","):
    sizes, seconds, rows = [], [], 10_000
    while rows <= MOST[name]:
      sizes.append(rows)
      seconds.append(measure(name, rows, arguments.repeats))
      print(f"{name} {rows:,}: {seconds[-1]:.3f} s", flush=True)
      rows = round(rows * arguments.factor)
    large = np.array(sizes) >= 100_000
    slope = np.polyfit(np.log(sizes)[large], np.log(seconds)[large], 1)[0]
    print(f"{name}: slope {slope:.2f}", flush=True)
    axes.loglog(sizes, seconds, "o-", markersize=3, label=f"{name} (slope {slope:.2f})")
  axes.set_xlabel("rows of the pool")
  axes.set_ylabel("seconds of a selection")
  axes.grid(alpha=0.3)
  axes.legend(frameon=False)
  figure.savefig(Path(arguments.out), dpi=130)
  print(f"wrote {arguments.out}")


if __name__ == "__main__":
  main()
