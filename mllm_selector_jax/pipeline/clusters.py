"""Computes the pool's k-means clusters once, and reads them from the workdir."""

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.pipeline.kept_work import oversee
from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring.score_table import ScoreTable
from mllm_selector_jax.selection import groups
from mllm_selector_jax.selection.pairwise.unit_rows import Stacked
from mllm_selector_jax.types import InputError

STEP = 1 << 16  # rows that are checked at once
NONE = -1  # the cluster of a row without a finite embedding


def read_clusters(
  run: Run, pool: PoolTable, table: ScoreTable, number: int, rng: int
) -> groups.Groups:
  """Return the clusters of all scored rows, aligned with `table.row`.

  They are computed if the workdir does not have them yet. They cover all scored rows
  and not only the eligible ones, so that all strategies share them. A row whose
  embedding is not finite is in cluster -1. A command that was ended goes on from the
  last pass that it kept.

  Args:
    run: The run whose workdir keeps them, in `clusters/<number>-<rng>/`.
    pool: The checked pool.
    table: The score table.
    number: How many clusters; 0 chooses the number from the number of rows.
    rng: Seed of k-means.

  Raises:
    InputError: The table holds no embeddings.
  """
  artifact = run.workdir.clusters(number, rng)
  recipe = artifacts.Recipe(
    "select",
    {"clusters": number, **groups.KMEANS},
    {"scores": run.workdir.scores.digest(), "pool": run.workdir.pool.digest()},
    rng,
  )
  if not peers.is_first_process():
    return _with_names(_cluster(run, pool, table, number, rng))
  if reasons := artifact.why_stale(recipe):
    name = run.workdir.name(artifact)
    again = "" if reasons == ["not made yet"] else f" again: {'; '.join(reasons[:4])}"
    run.say(f"{run.stage}: making {name}{again}")
    aside = artifact.aside(recipe.to_text())
    cluster = _cluster(run, pool, table, number, rng, aside)
    with artifact.making(recipe) as folder:
      import pyarrow as pa

      written = pa.table({"row": pa.array(table.row), "cluster": pa.array(cluster)})
      artifacts.write_table(folder / "clusters.parquet", written)
    if run.bucket is not None:
      run.bucket.put(artifact)
    return _with_names(cluster)
  import pyarrow.parquet as pq

  path = artifact.path / "clusters.parquet"
  return _with_names(pq.read_table(path, columns=["cluster"])["cluster"].to_numpy())


def _cluster(run, pool, table, number, rng, aside=None) -> Int[np.ndarray, " n"]:
  parts = table.map_embeddings()
  if not parts or not parts[0].shape[1]:  # a table that another run made may hold none
    raise InputError(
      "select.groups is kmeans, but the scores hold no embeddings; run the score"
      " stage with them, or group by source or necessity."
    )
  usable = find_finite(Stacked(parts))
  rows = table.row if usable.all() else table.row[usable]
  finite = Stacked(parts, None if usable.all() else np.flatnonzero(usable))
  keys, overseer = read_keys(pool, rows), oversee(run, aside, "clusters")
  keeper = overseer.keep("passes", keys, number, rng)
  cluster = np.full(len(usable), NONE, np.int32)
  cluster[usable] = groups.by_embedding(
    finite, number, keys, rng, watch=overseer.watch, keeper=keeper
  ).index
  return cluster


def _with_names(cluster: Int[np.ndarray, " n"]) -> groups.Groups:
  names = (f"cluster {c}" for c in range(int(cluster.max(initial=NONE)) + 1))
  return groups.Groups(cluster, tuple(names))


def find_finite(
  embeddings: Float[np.ndarray, "n E"] | Stacked,
) -> Bool[np.ndarray, " n"]:
  """Mark the rows whose embedding is finite."""
  parts = range(0, len(embeddings), STEP)
  finite = [np.isfinite(embeddings[start : start + STEP]).all(1) for start in parts]
  return np.concatenate([np.zeros(0, bool), *finite])


def read_keys(pool: PoolTable, rows: Int[np.ndarray, " n"]) -> np.ndarray:
  """Return the first 64 bits of the rows' content hashes, as uint64 [n]."""
  return np.array([int(value[:16], 16) for value in pool.hash[rows]], np.uint64)
