"""What arms of comparisons on drawn pools keep: how many wrong rows, how many tasks.

  python -m benchmarks.kept runs/headline-21 runs/headline-22

Prints, as means over the workdirs' pools, the share of the kept rows that are wrong or
misaligned, and the number of tasks that they amount to, the exponential of the entropy
of the tasks' shares: as many tasks as there are, if all had as many rows.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mllm_selector_jax.comparison.comparison_plan import FULL, POOL
from mllm_selector_jax.selection.measures import effective_groups


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("workdirs", nargs="+", type=Path)
  found: dict[tuple[str, str], list[tuple[float, float]]] = {}
  for workdir in parser.parse_args().workdirs:
    for pool in sorted((workdir / "seeds").iterdir()):
      truth = pq.read_table(pool / "demo_pool" / "truth.parquet")
      bad = truth["wrong"].to_numpy() | truth["misaligned"].to_numpy()
      task = np.array(truth["task"].to_pylist())
      found.setdefault(POOL, []).append(describe(bad, task))
      for path in sorted(workdir.glob(f"arms/*-{pool.name}/selection/*.parquet")):
        strategy, budget, _ = path.parts[-3].rsplit("-", 2)
        if strategy != FULL:
          kept = pq.read_table(path)["kept"].to_numpy()
          line = describe(bad[kept], task[kept])
          found.setdefault((strategy, budget), []).append(line)
  print(
    "| strategy | budget | pools | wrong or misaligned | tasks |\n" + "|---" * 5 + "|"
  )
  for (strategy, budget), lines in sorted(found.items(), key=_order):
    share, tasks = np.mean(lines, 0)
    print(f"| {strategy} | {budget} | {len(lines)} | {share:.3f} | {tasks:.1f} |")


def describe(bad: np.ndarray, task: np.ndarray) -> tuple[float, float]:
  """Share of bad rows, and the effective number of tasks, of some rows."""
  _, counts = np.unique(task, return_counts=True)
  return float(bad.mean()), effective_groups(counts / counts.sum())


def _order(item):
  (_, budget), lines = item
  return budget, np.mean(lines, 0)[0]


if __name__ == "__main__":
  main()
