"""Peak memory of what compares embeddings that stay on disk.

    python -m benchmarks.out_of_core --folder=DIR --rows=10000000

A pool of float16 shards is written to DIR (rows x width x 2 bytes) and removed at the
end. Each trial is a process of its own, on the memory-mapped shards. Memory is the most
anonymous memory (RssAnon) that it had, looked at 20 times a second: pages of the shards
are the system's cache, which it may drop. Seconds are of processor time.
"""

import argparse
import multiprocessing
import shutil
import threading
import time
from pathlib import Path

import numpy as np

from mllm_selector_jax.selection import kmeans, measures
from mllm_selector_jax.selection.bounds.probe import FOLDS, probe
from mllm_selector_jax.selection.covering import cover_greedily
from mllm_selector_jax.selection.pairwise.blocks import sort_by_group
from mllm_selector_jax.selection.pairwise.unit_rows import Stacked, UnitRows
from mllm_selector_jax.selection.rivals.k_center import farthest_first
from mllm_selector_jax.selection.rivals.semdedup import novelty

SHARD_ROWS = 1 << 18
CLOUD_ROWS = 100


def write_pool(folder: Path, rows: int, width: int) -> None:
  """Writes clouds of a hundred rows; a shard is the first one, turned and shifted."""
  rng = np.random.default_rng(0)
  first = rng.normal(size=(SHARD_ROWS, width)).astype(np.float16)
  cloud = np.arange(SHARD_ROWS) // CLOUD_ROWS
  first += rng.normal(size=(cloud[-1] + 1, width)).astype(np.float16)[cloud]
  for number, start in enumerate(range(0, rows, SHARD_ROWS)):
    shift = rng.normal(size=width).astype(np.float16) / 4
    part = np.roll(first, number, axis=1)[: rows - start] + shift
    np.save(folder / f"part-{number:05}.npy", part)


def cluster(pool: Stacked, arguments) -> str:
  found = kmeans.kmeans(
    pool, arguments.clusters, tolerance=0.0, most_iterations=arguments.iterations
  )
  return f"K {arguments.clusters}, {found.iterations} passes and one for labels"


def center(pool: Stacked, arguments) -> str:
  vectors = UnitRows(pool)
  farthest_first(vectors, np.arange(len(vectors)), 0, arguments.budget)
  return f"{arguments.budget:,} picks"


def semdedup(pool: Stacked, arguments) -> str:
  count = len(pool)
  groups = np.arange(count) // (10 * CLOUD_ROWS)
  novelty(
    UnitRows(pool),
    sort_by_group(np.arange(count), groups, np.arange(count, dtype=np.uint64)),
  )
  return f"{int(groups[-1]) + 1:,} clusters"


def measure(pool: Stacked, arguments) -> str:
  vectors, key = UnitRows(pool), np.arange(len(pool), dtype=np.uint64)
  kept = key % 1000 == 0
  measures.find_nearness(vectors, kept, key)
  measures.find_duplicates(vectors, kept, key, 0.95)
  return f"{int(kept.sum()):,} rows kept"


def judge(pool: Stacked, arguments) -> str:
  rng = np.random.default_rng(0)
  place = np.arange(len(pool))
  label, part = rng.integers(0, 100, len(pool)), rng.integers(0, FOLDS, len(pool))
  groups, tie = place // (10 * CLOUD_ROWS), place.astype(np.uint64)
  probe(UnitRows(pool), label, part, groups, tie)
  return f"100 answers, {int(groups[-1]) + 1:,} clusters"


def cover(pool: Stacked, arguments) -> str:
  count = len(pool) // 10
  cover_greedily(UnitRows(pool), np.arange(len(pool)), 0, count)
  return f"{count:,} picks"


TRIALS = {
  "k-means": cluster,
  "k_center": center,
  "semdedup": semdedup,
  "measures": measure,
  "probe": judge,
  "facility_location": cover,
}


def read_anonymous() -> float:
  """Anonymous memory of this process in GB."""
  for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("RssAnon"):
      return int(line.split()[1]) * 1024 / 1e9
  raise RuntimeError("this kernel does not tell the anonymous memory of a process")


def run_trial(name: str, folder: Path, arguments) -> None:
  parts = [np.load(path, mmap_mode="r") for path in sorted(folder.iterdir())]
  pool = Stacked(parts)
  peak, ended = [read_anonymous()], threading.Event()

  def watch():
    while not ended.wait(0.05):
      peak[0] = max(peak[0], read_anonymous())

  watcher = threading.Thread(target=watch)
  watcher.start()
  begun = time.process_time()
  told = TRIALS[name](pool, arguments)
  seconds = time.process_time() - begun
  ended.set()
  watcher.join()
  print(f"| {name} | {told} | {seconds:.0f} s | {peak[0]:.2f} GB |", flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--folder", required=True, help="where the pool is written")
  parser.add_argument("--rows", type=int, default=10_000_000)
  parser.add_argument("--width", type=int, default=256)
  within = [name for name in TRIALS if name != "facility_location"]  # up to a million
  parser.add_argument("--trials", default=",".join(within))
  parser.add_argument("--clusters", type=int, default=1000)
  parser.add_argument("--iterations", type=int, default=1)
  parser.add_argument("--budget", type=int, default=300)
  arguments = parser.parse_args()
  folder = Path(arguments.folder) / "embeddings"
  folder.mkdir(parents=True)
  try:
    write_pool(folder, arguments.rows, arguments.width)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
    print(f"{arguments.rows:,} x {arguments.width}, {size:.2f} GB of float16")
    print("| trial | of what | CPU | peak |\n|---|---|---|---|", flush=True)
    context = multiprocessing.get_context("spawn")
    for name in arguments.trials.split(","):
      trial = context.Process(target=run_trial, args=(name, folder, arguments))
      trial.start()
      trial.join()
      if trial.exitcode:
        print(f"| {name} | failed | | |", flush=True)
  finally:
    shutil.rmtree(folder)


if __name__ == "__main__":
  main()
