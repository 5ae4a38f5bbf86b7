"""Planning of a pool like LLaVA's: seconds, memory, fill, savings and balance.

    python -m benchmarks.plan [--rows 1000000] [--row_lengths 2048,4096] [--by_path]

The predicted saving is (P + T) / (P / m + T) with the pool's own mean trunk P,
other tokens T a row (rows without image included) and rows an image m.
"""

import argparse
import resource
import time

import numpy as np
from jaxtyping import Num

from benchmarks.pool_columns import share_images
from benchmarks.pool_like_665k import PoolLengths, draw_pool
from mllm_selector_jax.data.packing.tree_packing import Plan, make_plan


def predict_saving(pool: PoolLengths) -> float:
  """Executed tokens without sharing over those with it, if no group were split."""
  images = len(np.unique(pool.images[pool.trunks > 0]))
  shared = pool.trunks.sum() / max(1, np.count_nonzero(pool.trunks)) * images
  return pool.lengths.sum() / ((pool.lengths - pool.trunks).sum() + shared)


def measure_balance(values: Num[np.ndarray, " r"], run: int) -> float:
  """The most that consecutive rows hold, over the mean."""
  ends = np.concatenate([[0], np.cumsum(values)])
  sums = ends[run:] - ends[:-run]
  return sums.max() / sums.mean()


def report(pool: PoolLengths, plan: Plan, seconds: float, name: str) -> int:
  """Prints a plan's figures; gives its executed tokens."""
  tokens = int(plan.tokens(pool.lengths).sum())
  has_image = pool.images != 0
  runs = plan.tiles(has_image)
  learned = plan.sums(pool.supervised)
  balance = "; ".join(
    f"{run} rows: images {measure_balance(runs, run):.2f},"
    f" supervised {measure_balance(learned, run):.2f}"
    for run in (8, 16, 32)
  )
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
  held = sum(
    getattr(plan, part).nbytes for part in ("items", "trees", "trunks", "rows")
  )
  print(
    f"{plan.row_length} {name}: {seconds:.2f} s, peak {peak:.2f} GB, plan"
    f" {held / 1e6:.0f} MB; {len(plan):,} packed rows, {len(plan.trunks):,} trees,"
    f" {tokens:,} tokens, fill {tokens / (len(plan) * plan.row_length):.4f},"
    f" {int(runs.sum()):,} vision runs\n  most over mean of consecutive rows: {balance}"
  )
  return tokens


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rows", type=int, default=1_000_000)
  parser.add_argument("--row_lengths", default="2048,4096")
  parser.add_argument("--by_path", action="store_true")
  arguments = parser.parse_args()
  pool = draw_pool(arguments.rows, by_path=arguments.by_path)
  has_image = pool.images != 0
  images = len(np.unique(pool.images[has_image]))
  print(
    f"{arguments.rows:,} rows, {np.count_nonzero(~has_image):,} of text only,"
    f" {images:,} images ({has_image.sum() / images:.2f} rows each),"
    f" {pool.lengths.mean():.0f} tokens a row, {pool.supervised.mean():.0f} supervised"
  )

  prefixes = share_images(pool.trunks, pool.images)

  def timed(length, shared=None):
    before = time.perf_counter()
    plan = make_plan(pool.lengths, length, shared, has_image, pool.supervised)
    return plan, time.perf_counter() - before

  for length in map(int, arguments.row_lengths.split(",")):
    alone, seconds = timed(length)
    tokens = report(pool, alone, seconds, "without sharing")
    plan, seconds = timed(length, prefixes)
    fewer = report(pool, plan, seconds, "with sharing")
    print(
      f"  tokens without over with sharing {tokens / fewer:.3f} (predicted"
      f" {predict_saving(pool):.3f}), packed rows {len(alone) / len(plan):.3f}"
    )


if __name__ == "__main__":
  main()
