"""Measures how diverse a selection is, without tuning a model on it.

Over groups: the divergence of the group shares from a target, and the effective number
of groups. Over embeddings, by cosine distance (1 - cosine): how far the pool's rows are
from their nearest kept row, and how many kept rows are near-duplicates of another.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection import draws
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows

Progress = Callable[[int, int], None]
# Near-duplicates are nearer than this share of the mean distance of two rows. A fixed
# cosine would say nothing: in some models' embeddings all cosines are above .9.
NEAR = 0.05
MOST_COSINE = 1 - 1e-6  # equal rows have at least this, whatever is rounded
MOST_PAIRS = 2_000_000_000  # the maximum of comparisons: some seconds on two cores
MOST_SAMPLED = 100_000  # the maximum of rows in a sample
LEAST_SAMPLED = 1_000  # the minimum of rows in a sample
TILE = 1024  # rows compared with as many others at a time: 4 MB of similarities
DECIMALS = 6  # to which figures from float32 similarities are rounded


class Measures(NamedTuple):
  """The measures of a selection; those of embeddings are None without embeddings.

  Attributes:
    rows: the number of kept rows.
    divergence: see `divergence`.
    effective_groups: see `effective_groups`.
    coverage_radius: see `find_nearness`.
    mean_distance: see `find_nearness`.
    duplicates: the share of near-duplicates; see `find_duplicates`.
    pool_rows_compared: the number of pool rows from which the two distances follow.
    kept_rows_compared: the number of kept rows from which `duplicates` follows.
  """

  rows: int
  divergence: float | None
  effective_groups: float
  coverage_radius: float | None = None
  mean_distance: float | None = None
  duplicates: float | None = None
  pool_rows_compared: int | None = None
  kept_rows_compared: int | None = None


class Nearness(NamedTuple):
  """Distances of pool rows to their nearest kept row.

  Attributes:
    radius: the largest distance, the coverage radius.
    mean: the mean distance.
    looked_at: the number of pool rows that were compared.
  """

  radius: float
  mean: float
  looked_at: int


class Duplicates(NamedTuple):
  """Kept rows that are near-duplicates of another kept row.

  Attributes:
    share: their share of the rows that were compared.
    looked_at: the number of kept rows that were compared.
  """

  share: float
  looked_at: int


def measure(
  kept: Bool[np.ndarray, " N"],
  groups: Groups,
  target: Float[np.ndarray, " G"],
  key: UInt64[np.ndarray, " N"],
  embeddings: UnitRows | None = None,
  cosine: float = MOST_COSINE,
  rng: int = 0,
  watch: Callable[[str], AbstractContextManager[Progress | None]] = lambda title: (
    nullcontext()
  ),
) -> Measures:
  """Computes all measures of a selection.

  Args:
    kept: which rows are kept; at least one.
    groups: the groups of all pool rows.
    target: the target shares of the groups.
    key: content hashes.
    embeddings: the rows of the pool, of length 1.
    cosine: the cosine above which rows are near-duplicates.
    rng: seed of the samples, which are drawn if there are too many pairs.
    watch: maps a title to a context manager whose value is called with the number of
      comparisons done and the total.
  """
  counts = np.bincount(groups.index[kept], minlength=len(groups.names))
  shares = counts / counts.sum()
  measures = Measures(
    int(counts.sum()), divergence(shares, target), effective_groups(shares)
  )
  if embeddings is None:
    return measures
  with watch("nearest kept rows") as progress:
    near = find_nearness(embeddings, kept, key, rng, progress)
  with watch("near-duplicates") as progress:
    copies = find_duplicates(embeddings, kept, key, cosine, rng, progress)
  return measures._replace(
    coverage_radius=near.radius,
    mean_distance=near.mean,
    duplicates=copies.share,
    pool_rows_compared=near.looked_at,
    kept_rows_compared=copies.looked_at,
  )


def find_near_cosine(embeddings: UnitRows) -> float:
  """Returns the cosine above which rows are near-duplicates.

  It is 1 - `NEAR` times the mean cosine distance of two different rows.

  Args:
    embeddings: the rows of the pool, of length 1.
  """
  count = len(embeddings)
  if count < 2:
    return MOST_COSINE
  # All pairs at once: the squared length of the sum of vectors is the sum of cosines.
  total = embeddings.sum_rows()
  mean = (float(total @ total) - count) / (count * (count - 1))
  return min(_round(1 - NEAR * (1 - mean)), MOST_COSINE)


def divergence(
  shares: Float[np.ndarray, " G"], target: Float[np.ndarray, " G"]
) -> float | None:
  """Returns KL(shares || target) in nats.

  The result is None if it is infinite, as a group with rows has target share 0, or
  if there is no target (NaN).
  """
  present = shares > 0
  if not np.all(target[present] > 0):
    return None
  terms = shares[present] * np.log(shares[present] / target[present])
  return max(float(np.sum(terms)), 0.0)  # a negative sum is a rounding error


def effective_groups(shares: Float[np.ndarray, " G"]) -> float:
  """Returns exp(entropy of the shares), G for G equal groups (Hill, 1973)."""
  positive = shares[shares > 0]
  return math.exp(-float(np.sum(positive * np.log(positive))))


def find_nearness(
  embeddings: UnitRows,
  kept: Bool[np.ndarray, " N"],
  key: UInt64[np.ndarray, " N"],
  rng: int = 0,
  progress: Progress | None = None,
  most_pairs: int = MOST_PAIRS,
  tile: int = TILE,
) -> Nearness:
  """Computes the coverage radius and the mean distance to the nearest kept row.

  The coverage radius is that of Sener and Savarese (2018), the largest distance of a
  pool row to its nearest kept row; a kept row has distance 0. The result is exact if
  pool rows times kept rows are at most `most_pairs`. Otherwise a sample of the pool's
  rows is compared, and the radius is a lower bound.

  Args:
    embeddings: the rows of the pool, of length 1.
    kept: which rows are kept; at least one.
    key: content hashes, from which the sample is drawn, so that it does not depend on
      the order of the rows.
    rng: seed of the sample.
    progress: called with the number of comparisons done and the total.
    most_pairs: the maximum of comparisons.
    tile: the number of rows compared at a time; it changes only time and memory.
  """
  if kept.all():
    return Nearness(0.0, 0.0, len(kept))
  places = _sample(key, kept.sum(), rng, most_pairs)
  far = places[~kept[places]]
  best = _highest(embeddings, far, np.flatnonzero(kept), False, progress, tile)
  distance = np.clip(1 - best.astype(np.float64), 0, 2)
  mean = math.fsum(distance) / len(places)
  return Nearness(_round(distance.max(initial=0)), _round(mean), len(places))


def find_duplicates(
  embeddings: UnitRows,
  kept: Bool[np.ndarray, " N"],
  key: UInt64[np.ndarray, " N"],
  cosine: float,
  rng: int = 0,
  progress: Progress | None = None,
  most_pairs: int = MOST_PAIRS,
  tile: int = TILE,
) -> Duplicates:
  """Computes the share of kept rows whose cosine with another one is above a threshold.

  The result is exact if the pairs of kept rows are at most `most_pairs`. Otherwise a
  sample of kept rows is compared with all kept rows.

  Args:
    embeddings: the rows of the pool, of length 1.
    kept: which rows are kept; at least one.
    key: content hashes, from which the sample is drawn.
    cosine: the threshold.
    rng: seed of the sample.
    progress: called with the number of comparisons done and the total.
    most_pairs: the maximum of comparisons.
    tile: the number of rows compared at a time.
  """
  others = np.flatnonzero(kept)
  places = others[_sample(key[others], len(others), rng, most_pairs)]
  best = _highest(embeddings, places, others, True, progress, tile)
  return Duplicates(float(np.mean(best > np.float32(cosine))), len(places))


def _sample(key, others, rng, most_pairs) -> Int[np.ndarray, " n"]:
  """Returns the places of the rows to compare, ascending; all if there are few."""
  rows = len(key)
  if rows * int(others) <= most_pairs:
    return np.arange(rows)
  count = max(LEAST_SAMPLED, min(MOST_SAMPLED, most_pairs // max(int(others), 1)))
  if count >= rows:
    return np.arange(rows)
  drawn = draws.draw(rng, key, "measures")
  return np.sort(np.argsort(drawn, kind="stable")[:count])


def _highest(
  vectors, places, others, skip_itself, progress, tile
) -> Float[np.ndarray, " n"]:
  """Returns the highest cosine of each row at `places` with a row at `others`."""
  from mllm_selector_jax.selection.pairwise import kernels, row_tiles  # imports jax

  left = row_tiles.Tiles(vectors, places, marks=places, size=tile)
  right = row_tiles.Tiles(vectors, others, marks=others, size=tile)
  mask = kernels.other_rows if skip_itself else kernels.all_rows

  def function(best, rows, compared):
    return kernels.highest(best, rows, compared, mask=mask)

  start = np.full(left.size, -np.inf, np.float32)
  states = row_tiles.fold(function, start, left, right, progress=progress)
  return row_tiles.gather(start, left, states)


def _round(value: float) -> float:
  return round(float(value), DECIMALS)
