"""k-means beside faiss and scikit-learn: seconds until the same inertia.

    pip install -e '.[test,rivals]'
    OMP_NUM_THREADS=2 python -m benchmarks.kmeans --rows=200000 --clusters=447

All get the same unit vectors (clouds around drawn centres), the same K, one start and
all cores; ours starts from greedy k-means++, scikit-learn from k-means++, faiss from
random rows, which is all it has. All times include the labels of all rows, for which
ours makes a pass more, and faiss a search after its last iteration. Each runs once with
every number of iterations in `--iterations`. The inertia that counts is the worst of
the best that each of `--methods` reaches with all rows, so that all of them reach it; a
method's time is that of its shortest run to within `--slack` of it. "faiss, sampled"
computes centres from 256 rows each, as faiss does by default; it may not reach that
inertia. Inertia is taken by one function from each one's centres, in float64. Methods
take turns, `--repeats` times; medians are printed.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.selection import make_embeddings
from mllm_selector_jax.selection import kmeans


def run_ours(values: np.ndarray, clusters: int, iterations: int) -> np.ndarray:
  found = kmeans.kmeans(
    values, clusters, normalise=False, tolerance=0.0, most_iterations=iterations
  )
  return found.centres


def run_faiss(
  values: np.ndarray, clusters: int, iterations: int, most: int | None = None
) -> np.ndarray:
  import faiss

  found = faiss.Kmeans(
    values.shape[1],
    clusters,
    niter=iterations,
    seed=0,
    max_points_per_centroid=most or len(values),
    min_points_per_centroid=1,
  )
  found.train(values)
  found.index.search(values, 1)  # labels
  return found.centroids


def run_sklearn(values: np.ndarray, clusters: int, iterations: int) -> np.ndarray:
  import warnings

  from sklearn.cluster import KMeans

  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it has not converged
    found = KMeans(
      clusters, n_init=1, max_iter=iterations, tol=0.0, random_state=0
    ).fit(values)
  return found.cluster_centers_


SAMPLED = "faiss-sampled"
METHODS: dict[str, Callable] = {
  "ours": run_ours,
  "faiss": run_faiss,
  SAMPLED: functools.partial(run_faiss, most=256),
  "scikit-learn": run_sklearn,
}


def measure_inertia(values: np.ndarray, centres: np.ndarray) -> float:
  """Sum of squared distances to the nearest centre, in float64."""
  total, centres = 0.0, centres.astype(np.float64)
  half = 0.5 * (centres**2).sum(1)
  for start in range(0, len(values), 1 << 14):
    block = values[start : start + (1 << 14)].astype(np.float64)
    nearest = centres[(block @ centres.T - half).argmax(1)]
    total += float(((block - nearest) ** 2).sum())
  return total


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--rows", type=int, default=200_000)
  parser.add_argument("--clusters", type=int, default=447)
  parser.add_argument("--width", type=int, default=256)
  parser.add_argument("--clouds", type=int, default=2000, help="drawn, beside noise")
  parser.add_argument("--iterations", default="2,3,4,5,6,7,8,10,20")
  parser.add_argument("--methods", default=",".join(METHODS))
  parser.add_argument("--slack", type=float, default=0.001)
  parser.add_argument("--repeats", type=int, default=3)
  arguments = parser.parse_args()

  rng = np.random.default_rng(0)
  index = rng.integers(0, arguments.clouds, arguments.rows)
  values = make_embeddings(rng, index, arguments.clouds, arguments.width)
  values /= np.linalg.norm(values, axis=1, keepdims=True)
  settings = [int(number) for number in arguments.iterations.split(",")]
  methods = {name: METHODS[name] for name in arguments.methods.split(",")}
  seconds, inertia = {}, {}
  run_ours(values, arguments.clusters, 1)  # compiles
  for _ in range(arguments.repeats):
    for iterations in settings:
      for name, run in methods.items():
        begun = time.perf_counter(), time.process_time()
        centres = run(values, arguments.clusters, iterations)
        spent = time.perf_counter() - begun[0], time.process_time() - begun[1]
        seconds.setdefault((name, iterations), []).append(spent)
        if (name, iterations) not in inertia:
          inertia[name, iterations] = measure_inertia(values, centres)
  print(
    f"{arguments.rows:,} x {arguments.width}, K {arguments.clusters},"
    f" medians of {arguments.repeats}"
  )
  print("| method | iterations | seconds | of CPU | inertia |\n|---|---|---|---|---|")
  wall = {}
  for key, spent in seconds.items():
    wall[key] = statistics.median(second for second, _ in spent)
    cpu = statistics.median(second for _, second in spent)
    print(f"| {key[0]} | {key[1]} | {wall[key]:.2f} | {cpu:.2f} | {inertia[key]:.1f} |")
  whole = [name for name in methods if name != SAMPLED]
  wanted = max(min(inertia[name, i] for i in settings) for name in whole)
  wanted *= 1 + arguments.slack
  print(f"\nSeconds to an inertia of {wanted:.1f}:")
  for name in methods:
    reached = [i for i in settings if inertia[name, i] <= wanted]
    if not reached:
      print(f"{name}: does not reach it")
      continue
    cpu = statistics.median(spent for _, spent in seconds[name, reached[0]])
    print(
      f"{name}: {wall[name, reached[0]]:.2f} s, {cpu:.2f} s of CPU"
      f" ({reached[0]} iterations)"
    )


if __name__ == "__main__":
  main()
