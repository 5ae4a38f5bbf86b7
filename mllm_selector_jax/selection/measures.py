"""How diverse a selection is, in figures that need no tuning.

Over groups: the divergence of its shares from a target and how many even groups it
is like. Over embeddings, by cosine distance (1 - cosine): how far pool rows are from
their nearest kept row, and how many kept rows are nearly the same as another.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection import draws
from mllm_selector_jax.selection.groups import Groups

Progress = Callable[[int, int], None]
DUPLICATE = 0.95  # the cosine of near-duplicates where no threshold is set
MOST_PAIRS = 2_000_000_000  # compared exactly: some seconds on two cores
MOST_SAMPLED = 100_000  # rows looked at where all pairs are more
LEAST_SAMPLED = 1_000
TILE = 2048  # rows of each side that are compared at once: 16 MB of similarities
DECIMALS = 6  # of what follows from float32 similarities


class Measures(NamedTuple):
  """A selection in figures; distances are None where there are no embeddings.

  Attributes:
    rows: kept.
    divergence: see `divergence`.
    effective_groups: see `effective_groups`.
    coverage_radius: see `find_nearness`.
    mean_distance: see `find_nearness`.
    duplicates: see `find_duplicates`.
    pool_rows_compared: over which the two distances are.
    kept_rows_compared: over which the share of duplicates is.
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
    radius: the largest: the coverage radius, of the rows looked at.
    mean: over the rows looked at.
    looked_at: how many pool rows those are.
  """

  radius: float
  mean: float
  looked_at: int


class Duplicates(NamedTuple):
  """Kept rows that are nearly the same as another kept row.

  Attributes:
    share: of the rows looked at.
    looked_at: how many kept rows those are.
  """

  share: float
  looked_at: int


def measure(
  kept: Bool[np.ndarray, " N"],
  groups: Groups,
  target: Float[np.ndarray, " G"],
  key: UInt64[np.ndarray, " N"],
  embeddings: Float[np.ndarray, "N D"] | None = None,
  cosine: float = DUPLICATE,
  rng: int = 0,
  watch: Callable[[str], AbstractContextManager[Progress | None]] = lambda title: (
    nullcontext()
  ),
) -> Measures:
  """All measures of one selection.

  Args:
    kept: one at least.
    groups: of all pool rows.
    target: shares of the groups.
    key: content hashes.
    embeddings: of length 1.
    cosine: above it rows are near-duplicates.
    rng: seed of the samples, where all pairs are too many.
    watch: from a title to a context that shows comparisons done and in all.
  """
  counts = np.bincount(groups.index[kept], minlength=len(groups.names))
  shares = counts / counts.sum()
  found = Measures(
    int(counts.sum()), divergence(shares, target), effective_groups(shares)
  )
  if embeddings is None:
    return found
  with watch("nearest kept rows") as progress:
    near = find_nearness(embeddings, kept, key, rng, progress)
  with watch("near-duplicates") as progress:
    copies = find_duplicates(embeddings, kept, key, cosine, rng, progress)
  return found._replace(
    coverage_radius=near.radius,
    mean_distance=near.mean,
    duplicates=copies.share,
    pool_rows_compared=near.looked_at,
    kept_rows_compared=copies.looked_at,
  )


def divergence(
  shares: Float[np.ndarray, " G"], target: Float[np.ndarray, " G"]
) -> float | None:
  """KL of shares to the target in nats; None beyond it or without one (NaN)."""
  own = shares > 0
  if not np.all(target[own] > 0):
    return None
  found = float(np.sum(shares[own] * np.log(shares[own] / target[own])))
  return max(found, 0.0)  # rounding alone goes below


def effective_groups(shares: Float[np.ndarray, " G"]) -> float:
  """The exponential of the shares' entropy: G for G even groups (Hill, 1973)."""
  own = shares[shares > 0]
  return math.exp(-float(np.sum(own * np.log(own))))


def find_nearness(
  embeddings: Float[np.ndarray, "N D"],
  kept: Bool[np.ndarray, " N"],
  key: UInt64[np.ndarray, " N"],
  rng: int = 0,
  progress: Progress | None = None,
  most_pairs: int = MOST_PAIRS,
  tile: int = TILE,
) -> Nearness:
  """Coverage radius (Sener and Savarese, 2018) and mean nearest-kept distance.

  Exact where pool rows x kept rows are at most `most_pairs`; beyond it over a sample
  of the pool's rows, so that the radius is at least what is given. A kept row is
  its own nearest, at distance 0.

  Args:
    embeddings: of length 1, of all pool rows.
    kept: one at least.
    key: content hashes; the sample follows from them, not from the rows' places.
    rng: seed of the sample.
    progress: told comparisons done and in all.
    most_pairs: comparisons that are made.
    tile: rows compared at once; changes time and memory alone.
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
  embeddings: Float[np.ndarray, "N D"],
  kept: Bool[np.ndarray, " N"],
  key: UInt64[np.ndarray, " N"],
  cosine: float = DUPLICATE,
  rng: int = 0,
  progress: Progress | None = None,
  most_pairs: int = MOST_PAIRS,
  tile: int = TILE,
) -> Duplicates:
  """Share of kept rows whose cosine with another kept row is above a threshold.

  Exact where pairs of kept rows are at most `most_pairs`; beyond it over a sample
  of kept rows, each beside all others.

  Args:
    embeddings: of length 1, of all pool rows.
    kept: one at least.
    key: content hashes, as in `find_nearness`.
    cosine: the threshold.
    rng: seed of the sample.
    progress: told comparisons done and in all.
    most_pairs: comparisons that are made.
    tile: rows compared at once.
  """
  others = np.flatnonzero(kept)
  places = others[_sample(key[others], len(others), rng, most_pairs)]
  best = _highest(embeddings, places, others, True, progress, tile)
  return Duplicates(float(np.mean(best > np.float32(cosine))), len(places))


def _sample(key, others, rng, most_pairs) -> Int[np.ndarray, " n"]:
  """Places of the rows that are looked at, ascending; all of them if few enough."""
  rows = len(key)
  if rows * int(others) <= most_pairs:
    return np.arange(rows)
  count = max(LEAST_SAMPLED, min(MOST_SAMPLED, most_pairs // max(int(others), 1)))
  if count >= rows:
    return np.arange(rows)
  drawn = draws.draw(rng, key, "measures")
  return np.sort(np.argsort(drawn, kind="stable")[:count])


def _highest(
  embeddings, places, others, skip_itself, progress, tile
) -> Float[np.ndarray, " n"]:
  """The highest cosine of each place with one of the others, float32.

  Every product has the same shape: a last row's similarity may otherwise round
  differently, as BLAS takes other ways at a matrix's edge.
  """
  best = np.full(len(places), -np.inf, np.float32)
  total, done = len(places) * len(others), 0
  left, right = np.zeros((2, tile, embeddings.shape[1]), np.float32)
  for start in range(0, len(others), tile):
    ours = others[start : start + tile]
    right[: len(ours)] = embeddings[ours]
    for first in range(0, len(places), tile):
      own = places[first : first + tile]
      left[: len(own)] = embeddings[own]
      found = (left @ right.T)[: len(own), : len(ours)]
      if skip_itself:
        found[own[:, None] == ours[None, :]] = -np.inf
      here = slice(first, first + len(own))
      best[here] = np.maximum(best[here], found.max(1))
      done += len(own) * len(ours)
      if progress:
        progress(done, total)
  return best


def _round(value: float) -> float:
  return round(float(value), DECIMALS)
