"""Strategies that compare embeddings beside what else computes them, on one core.

    pip install -e '.[test,rivals]' apricot-select
    python -m benchmarks.pairwise cover --rows=16384 --peers=submodlib,apricot
    python -m benchmarks.pairwise cover --rows=100000 --peers=apricot_sparse
    python -m benchmarks.pairwise cover --rows=100000 --peers=submodlib_sparse
    python -m benchmarks.pairwise loss --rows=8192
    python -m benchmarks.pairwise center --rows=1000000 --budget=1000 --width=64
      --peers=faiss
    python -m benchmarks.pairwise semdedup --rows=1000000 --width=64 --peers=faiss
    python -m benchmarks.pairwise recall --rows=100000

Rows are clouds around the centres of groups of a hundred. Seconds are those of the
process's CPU time, the compilation of our functions included. Value is the mean over
rows of the cosine with the nearest pick, 0 if it is negative, computed from the picks.
"""

import argparse
import time

import numpy as np

from benchmarks.greedy import apricot_location, submodlib_location
from benchmarks.selection import make_embeddings
from mllm_selector_jax.selection.covering import cover_greedily
from mllm_selector_jax.selection.pairwise import kernels, neighbours, row_tiles
from mllm_selector_jax.selection.pairwise.blocks import sort_by_group
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.rivals.k_center import farthest_first
from mllm_selector_jax.selection.rivals.semdedup import novelty

GROUP_ROWS = 100
SEMDEDUP_GROUPS = 1000
SAMPLE = 500  # rows whose true neighbours are found to measure recall


def make_rows(rows: int, width: int) -> np.ndarray:
  rng = np.random.default_rng(0)
  groups = max(50, rows // GROUP_ROWS)
  return make_embeddings(rng, rng.integers(0, groups, rows), groups, width)


def time_cpu(function, *arguments):
  start = time.process_time()
  result = function(*arguments)
  return result, time.process_time() - start


def measure_value(vectors: UnitRows, picks: np.ndarray) -> float:
  """Mean over all rows of the cosine with the nearest pick, 0 if it is negative."""
  left = row_tiles.Tiles(vectors, np.arange(len(vectors)))
  start = np.zeros(left.size, np.float32)
  states = row_tiles.fold(kernels.highest, start, left, row_tiles.Tiles(vectors, picks))
  return float(row_tiles.gather(start, left, states).mean(dtype=np.float64))


def cover_by_submodlib_sparse(values: np.ndarray, budget: int) -> np.ndarray:
  import submodlib

  function = submodlib.FacilityLocationFunction(
    n=len(values), mode="sparse", data=values, metric="cosine", num_neighbors=64
  )
  found = function.maximize(budget=budget, optimizer="LazyGreedy", show_progress=False)
  return np.array([row for row, _ in found])


def cover_by_apricot_sparse(values: np.ndarray, budget: int) -> np.ndarray:
  """Runs apricot on the 64 nearest rows of each, found by faiss's inverted lists."""
  import apricot
  import faiss
  from scipy import sparse

  rows, width = values.shape
  lists = round(rows**0.5)
  index = faiss.index_factory(width, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
  index.cp.max_points_per_centroid, index.nprobe = 64, 16
  index.train(values)
  index.add(values)
  cosine, near = index.search(values, 64)
  useful = (near >= 0) & (cosine > 0)
  pairs = np.repeat(np.arange(rows), useful.sum(1)), near[useful]
  similarity = sparse.csr_matrix((cosine[useful].astype(np.float64), pairs))
  found = apricot.FacilityLocationSelection(
    budget, metric="precomputed", optimizer="lazy"
  ).fit(similarity)
  return np.asarray(found.ranking)


COVERING = {
  "apricot_sparse": cover_by_apricot_sparse,
  "apricot": apricot_location,
  "submodlib": submodlib_location,
  "submodlib_sparse": cover_by_submodlib_sparse,
}


def cover(vectors: UnitRows, budget: int, peers: list[str]) -> None:
  order = np.arange(len(vectors))
  picked, ours = time_cpu(cover_greedily, vectors, order, 0, budget)
  print(f"ours: {ours:.1f} s, value {measure_value(vectors, picked.places):.5f}")
  for name in peers:
    values = vectors.rows(slice(None))
    picks, theirs = time_cpu(COVERING[name], values, budget)
    value = measure_value(vectors, picks)
    print(f"{name}: {theirs:.1f} s ({theirs / ours:.1f} x), value {value:.5f}")


def loss(vectors: UnitRows, budget: int, peers: list[str]) -> None:
  """The value of covering by the nearest rows alone, against all pairs."""
  order = np.arange(len(vectors))
  for count in (budget // 10, budget // 2, budget, 2 * budget):
    exact = cover_greedily(vectors, order, 0, count, len(vectors)).places
    near = cover_greedily(vectors, order, 0, count, 0).places
    value = measure_value(vectors, exact)
    share = measure_value(vectors, near) / value
    print(f"{count} rows: {value:.5f} by all pairs, {share:.5f} of it by nearest rows")


def center_by_faiss(values: np.ndarray, budget: int) -> np.ndarray:
  import faiss

  rows, width = values.shape
  best, product = np.full(rows, -np.inf, np.float32), np.empty(rows, np.float32)
  picks = []
  for _ in range(budget):
    picks.append(int(best.argmin()))
    faiss.fvec_inner_products_ny(
      faiss.swig_ptr(product),
      faiss.swig_ptr(values[picks[-1]]),
      faiss.swig_ptr(values),
      width,
      rows,
    )
    np.maximum(best, product, out=best)
    best[picks[-1]] = np.inf
  return np.array(picks)


def center(vectors: UnitRows, budget: int, peers: list[str]) -> None:
  picked, ours = time_cpu(farthest_first, vectors, np.arange(len(vectors)), 0, budget)
  print(f"ours: {ours:.1f} s, last distance {picked.gains[-1]:.5f}")
  if "faiss" in peers:
    values = vectors.rows(slice(None))
    picks, theirs = time_cpu(center_by_faiss, values, budget)
    same = len({*picks.tolist()} & {*picked.places.tolist()}) / budget
    print(
      f"faiss: {theirs:.1f} s ({theirs / ours:.1f} x), {same:.4f} of the rows alike"
    )


def novelty_by_faiss(values: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
  """As NeMo does it: each cluster's matrix of cosines, masked above the diagonal."""
  import faiss

  gain = np.empty(len(values))
  for part in parts:
    rows = values[part]
    outwards = np.argsort(rows @ rows.mean(0), kind="stable")
    rows = rows[outwards]
    cosine = faiss.pairwise_distances(rows, rows, faiss.METRIC_INNER_PRODUCT)
    cosine[np.triu_indices(len(rows))] = -1
    gain[part[outwards]] = 1 - cosine.max(1)
  return gain


def semdedup(vectors: UnitRows, budget: int, peers: list[str]) -> None:
  count = len(vectors)
  groups = np.random.default_rng(1).integers(0, SEMDEDUP_GROUPS, count)
  ordered = sort_by_group(np.arange(count), groups, np.arange(count, dtype=np.uint64))
  found, ours = time_cpu(novelty, vectors, ordered)
  print(f"ours: {ours:.1f} s")
  if "faiss" in peers:
    values = vectors.rows(slice(None))
    other, theirs = time_cpu(novelty_by_faiss, values, ordered.parts())
    same = np.mean(np.abs(other[ordered.rows] - found) < 1e-5)
    print(
      f"faiss: {theirs:.1f} s ({theirs / ours:.1f} x), {same:.5f} of the rows alike"
    )


def recall(vectors: UnitRows, budget: int, peers: list[str]) -> None:
  """The share of the true neighbours that inverted lists find."""
  count = len(vectors)
  sample = np.linspace(0, count - 1, SAMPLE).astype(np.int64)
  values = vectors.rows(slice(None))
  cosine = values[sample] @ values.T
  cosine[np.arange(SAMPLE), sample] = -np.inf
  for number in (5, 63):
    arguments = (vectors, np.arange(count), number, 0)
    found, seconds = time_cpu(neighbours.find_neighbours, *arguments)
    true = np.argpartition(-cosine, number - 1, axis=1)[:, :number]
    pairs = zip(found.place[sample], true, strict=True)
    share = np.mean([len({*a.tolist()} & {*b.tolist()}) / number for a, b in pairs])
    print(f"{number} neighbours: recall {share:.4f}, {seconds:.1f} s")


TRIALS = {
  "cover": cover,
  "loss": loss,
  "center": center,
  "semdedup": semdedup,
  "recall": recall,
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("trial", choices=TRIALS)
  parser.add_argument("--rows", type=int, default=8192)
  parser.add_argument("--width", type=int, default=256)
  parser.add_argument("--budget", type=int, default=0, help="by default a tenth")
  parser.add_argument("--peers", default="", help="names, separated by commas")
  args = parser.parse_args()
  vectors = UnitRows(make_rows(args.rows, args.width))
  budget = args.budget or args.rows // 10
  TRIALS[args.trial](vectors, budget, [name for name in args.peers.split(",") if name])


if __name__ == "__main__":
  main()
