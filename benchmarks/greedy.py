"""Facility location and k-center beside apricot and submodlib: same rows, same picks.

    pip install -e '.[test,rivals]'
    python benchmarks/greedy.py --rows=4000 --budget=800

Rows are unit vectors, similarity is the cosine, 0 where negative; all pairs count.
apricot and submodlib are given the matrix of similarities, which is made in their
time as it is in ours. Value is the objective itself, computed by one function from
the kept rows: the mean over rows of the similarity to the nearest kept one, and the
largest distance to it. submodlib has no k-center; its DisparityMin is the same
greedy (the row farthest from those kept), so it stands beside ours.
"""

import argparse
import statistics
import time

import numpy as np

from benchmarks.selection import make_embeddings
from mllm_selector_jax.selection.covering import cover_greedily
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.rivals.k_center import farthest_first


def ours_location(values: np.ndarray, budget: int) -> np.ndarray:
  return cover_greedily(UnitRows(values), np.arange(len(values)), 0, budget).places


def apricot_location(values: np.ndarray, budget: int) -> np.ndarray:
  import apricot

  similarity = np.maximum(values @ values.T, 0).astype(np.float64)
  found = apricot.FacilityLocationSelection(
    budget, metric="precomputed", optimizer="lazy"
  ).fit(similarity)
  return np.asarray(found.ranking)


def submodlib_location(values: np.ndarray, budget: int) -> np.ndarray:
  import submodlib

  similarity = np.maximum(values @ values.T, 0)
  function = submodlib.FacilityLocationFunction(
    n=len(values), mode="dense", sijs=similarity, separate_rep=False
  )
  found = function.maximize(budget=budget, optimizer="LazyGreedy", show_progress=False)
  return np.array([row for row, _ in found])


def ours_center(values: np.ndarray, budget: int) -> np.ndarray:
  return farthest_first(UnitRows(values), np.arange(len(values)), 0, budget).places


def submodlib_center(values: np.ndarray, budget: int) -> np.ndarray:
  import submodlib

  function = submodlib.DisparityMinFunction(
    n=len(values), mode="dense", sijs=values @ values.T
  )
  found = function.maximize(budget=budget, optimizer="NaiveGreedy", show_progress=False)
  return np.array([row for row, _ in found])


METHODS = {
  "facility location": {
    "ours": ours_location,
    "apricot": apricot_location,
    "submodlib": submodlib_location,
  },
  "k-center": {"ours": ours_center, "submodlib": submodlib_center},
}


def measure(values: np.ndarray, kept: np.ndarray) -> tuple[float, float]:
  """Mean similarity to the nearest kept row, and the largest distance to it."""
  nearest = (values.astype(np.float64) @ values[kept].T.astype(np.float64)).max(1)
  radius = np.sqrt(np.maximum(2 - 2 * nearest, 0)).max()
  return float(np.maximum(nearest, 0).mean()), float(radius)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--rows", type=int, default=4000)
  parser.add_argument("--budget", type=int, default=800)
  parser.add_argument("--width", type=int, default=64)
  parser.add_argument("--clouds", type=int, default=50)
  parser.add_argument("--repeats", type=int, default=3)
  arguments = parser.parse_args()

  rng = np.random.default_rng(0)
  index = rng.integers(0, arguments.clouds, arguments.rows)
  values = make_embeddings(rng, index, arguments.clouds, arguments.width)
  values /= np.linalg.norm(values, axis=1, keepdims=True)
  for name, methods in METHODS.items():
    seconds, kept = {}, {}
    for run in methods.values():
      run(values[:200], 20)  # apricot compiles
    for _ in range(arguments.repeats):
      for method, run in methods.items():
        begun = time.perf_counter()
        kept[method] = run(values, arguments.budget)
        seconds.setdefault(method, []).append(time.perf_counter() - begun)
    print(
      f"\n{name}: {arguments.budget:,} of {arguments.rows:,} x {arguments.width},"
      f" medians of {arguments.repeats}\n"
    )
    print("| method | seconds | x ours | mean similarity | radius | kept as ours |")
    print("|---|---|---|---|---|---|")
    own = statistics.median(seconds["ours"])
    for method, spent in seconds.items():
      similarity, radius = measure(values, kept[method])
      same = len(np.intersect1d(kept[method], kept["ours"])) / arguments.budget
      median = statistics.median(spent)
      print(
        f"| {method} | {median:.2f} | {median / own:.1f} | {similarity:.5f}"
        f" | {radius:.4f} | {same:.1%} |"
      )


if __name__ == "__main__":
  main()
