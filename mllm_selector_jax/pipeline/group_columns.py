"""Reads the columns that rows may be grouped by, and groups the rows."""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Bool

from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.pipeline.clusters import read_clusters
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring.score_table import ScoreTable
from mllm_selector_jax.selection import groups as grouping
from mllm_selector_jax.selection.eligibility import Scores
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.types import InputError

POOL_COLUMNS = ("source", "format", "turns", "truncated", "has_image")


class GroupColumns(Mapping):
  """The columns that rows may be grouped by; a column is read when it is looked up."""

  def __init__(self, pool: PoolTable, table: ScoreTable, finite: np.ndarray):
    self._pool, self._table, self._finite = pool, table, finite
    self._rows = table.row[finite]

  def __getitem__(self, name: str) -> np.ndarray:
    if name in POOL_COLUMNS:
      return getattr(self._pool, name)[self._rows]
    return self._table.columns[name][self._finite]

  def __iter__(self) -> Iterator[str]:
    return iter(dict.fromkeys([*POOL_COLUMNS, *self._table.columns]))

  def __len__(self) -> int:
    return len(list(iter(self)))


def make_groups(
  run: Run,
  pool: PoolTable,
  table: ScoreTable,
  finite: Bool[np.ndarray, " M"],
  columns: GroupColumns,
  scores: Scores,
  options: SelectOptions,
  rng: int,
) -> grouping.Groups:
  """Group the rows of a score table that are finite.

  Args:
    run: A run at the workdir of the pool and the scores.
    pool, table: The checked pool and the score table.
    finite: Which rows of the table are grouped.
    columns: The columns of these rows.
    scores: Their scores.
    options: Options of the selection.
    rng: Seed of the clusters.

  Raises:
    InputError: The embedding of a row is not finite, or a column is not known.
  """

  def clusters():
    all_clusters = read_clusters(run, pool, table, options.clusters, rng)
    index = all_clusters.index[finite]
    if bad := int((index < 0).sum()):
      raise InputError(
        f"The embeddings of {bad:,} of {len(index):,} scored rows are not finite; score"
        " again, or group by something else than kmeans."
      )
    return all_clusters._replace(index=index)

  return grouping.make_groups(
    options.groups, columns, scores.rank(), clusters, options.strata
  )
