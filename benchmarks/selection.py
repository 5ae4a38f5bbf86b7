"""Seconds and peak memory of the selection at scale, on the CPU.

Times of strategies are also given as multiples of the time of numpy's argsort of as
many float64, in the same run, since machines differ.

python benchmarks/selection.py --rows=10000000 --groups=5000
python benchmarks/selection.py --rows=200000 --groups=447 --strategies=d2,k_center
python benchmarks/selection.py --rows=200000 --clusters=1000 --width=256
"""

import argparse
import resource
import time

import numpy as np

from mllm_selector_jax.selection import (
  bounds,
  eligibility,
  groups,
  kmeans,
  options,
  strategies,
)


def make_embeddings(rng, index: np.ndarray, count: int, width: int) -> np.ndarray:
  """A cloud around a random centre for each group, float32."""
  centres = rng.normal(size=(count, width)).astype(np.float32)
  return centres[index] + rng.normal(size=(len(index), width)).astype(np.float32)


def make_pool(
  rows: int,
  count: int,
  width: int = 0,
  signals: set[str] = frozenset(),
  power: float = 1,
) -> tuple[eligibility.Scores, groups.Groups]:
  """Random scores and groups of which the n-th has a share that falls as n^-power."""
  rng = np.random.default_rng(0)
  weights = np.arange(1.0, count + 1) ** -power
  edges = np.cumsum(weights / weights.sum())
  index = np.minimum(np.searchsorted(edges, rng.random(rows)), count - 1)
  right = rng.random(rows) < 0.7
  loss = rng.exponential(np.where(right, 0.3, 2.0))
  signals = {name: rng.random(rows) for name in sorted(signals)}
  scores = eligibility.Scores(
    necessity=loss,
    key=rng.integers(0, 2**64, rows, dtype=np.uint64),
    signals={**signals, "loss": loss, "accuracy": right.astype(np.float64)},
    embeddings=make_embeddings(rng, index, count, width) if width else None,
    tokens=rng.integers(20, 800, rows),
  )
  names = tuple(f"group {c}" for c in range(count))
  return scores, groups.Groups(index.astype(np.int32), names)


def peak_memory() -> float:
  """Peak resident memory of this process so far, in GB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure_sort(rows: int) -> float:
  """Seconds of CPU that numpy takes for the argsort of as many float64."""
  values = np.random.default_rng(1).random(rows)
  before = time.process_time()
  np.argsort(values)
  seconds = time.process_time() - before
  print(f"argsort    {seconds:6.2f} s of CPU")
  return seconds


# Bounds of the score table alone.
WITHIN_REACH = [name for name, each in bounds.BOUNDS.items() if not each.held_out]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rows", type=int, default=10_000_000)
  parser.add_argument("--groups", type=int, default=5000)
  parser.add_argument("--budget", default="10%")
  parser.add_argument("--strategies", default="kl,random")
  parser.add_argument("--within", default="uniform", choices=options.WITHIN)
  parser.add_argument("--bound", default="mixture", choices=WITHIN_REACH)
  parser.add_argument("--clusters", type=int, default=0, help="time k-means instead")
  parser.add_argument("--width", type=int, default=256)
  parser.add_argument("--iterations", type=int, default=10)
  arguments = parser.parse_args()

  if arguments.clusters:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(arguments.rows, arguments.width)).astype(np.float32)
    before = time.perf_counter()
    found = kmeans.kmeans(
      embeddings,
      arguments.clusters,
      tolerance=0.0,
      most_iterations=arguments.iterations,
    )
    print(
      f"k-means, {arguments.rows:,} x {arguments.width}, K {arguments.clusters}:"
      f" {time.perf_counter() - before:.1f} s, {found.iterations} iterations,"
      f" inertia {found.inertia:.6g}, peak {peak_memory():.2f} GB"
    )
    return

  names = arguments.strategies.split(",")
  wanted = [strategies.STRATEGIES[name] for name in names]
  width = arguments.width if any(each.embeddings for each in wanted) else 0
  signals = {signal for each in wanted for signal in each.signals}
  scores, grouping = make_pool(arguments.rows, arguments.groups, width, signals)
  print(
    f"{arguments.rows:,} rows, {arguments.groups:,} groups, budget {arguments.budget};"
    f" {peak_memory():.2f} GB before"
  )
  sort = measure_sort(arguments.rows)
  for strategy in names:
    chosen = options.SelectOptions(
      strategy, within=arguments.within, bound=arguments.bound
    )
    before, worked = time.perf_counter(), time.process_time()
    selection = strategies.select(scores, grouping, arguments.budget, 0, chosen)
    seconds, worked = time.perf_counter() - before, time.process_time() - worked
    gap = (
      ""
      if selection.certificate is None
      else (f", certificate's gap {selection.certificate.gap:.1e}")
    )
    print(
      f"{strategy:10} {seconds:6.2f} s ({worked:.2f} s of CPU, {worked / sort:.1f}"
      " times the argsort's),"
      f" {int(selection.kept.sum()):,} rows kept, peak {peak_memory():.2f} GB{gap}"
    )


if __name__ == "__main__":
  main()
