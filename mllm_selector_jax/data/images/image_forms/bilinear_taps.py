"""Bilinear shrinking of a map of features, as sums of four features each."""

import numpy as np
from jaxtyping import Float, Int


def shrink_map(
  places: Int[np.ndarray, "h w"], rows: int, columns: int
) -> tuple[Int[np.ndarray, "k 4"], Float[np.ndarray, "k 4"]]:
  """What each place of the smaller map mixes, line by line, and by which shares.

  As torch's `interpolate` with mode "bilinear" and without aligned corners, in
  float32: neighbours are mixed, and no mean is taken over what lies between.

  Args:
    places: the features' numbers.
    rows, columns: of the smaller map.
  """
  (upper, lower, down), (left, right, across) = (
    _find_neighbours(size, count)
    for size, count in zip(places.shape, (rows, columns), strict=True)
  )
  corners = [places[np.ix_(y, x)] for y in (upper, lower) for x in (left, right)]
  shares = [np.outer(y, x) for y in (1 - down, down) for x in (1 - across, across)]
  return (
    np.stack(corners, -1).reshape(-1, 4),
    np.stack(shares, -1).reshape(-1, 4),
  )


def _find_neighbours(
  size: int, count: int
) -> tuple[
  Int[np.ndarray, " count"], Int[np.ndarray, " count"], Float[np.ndarray, " count"]
]:
  """Along a side: the two places between which each lies, and the second's share."""
  scale = np.float32(size) / np.float32(max(count, 1))
  # torch's kernels round once: the product is added to before it is rounded.
  centres = np.float64(scale) * (np.arange(count) + 0.5) - 0.5
  centres = np.maximum(centres.astype(np.float32), np.float32(0))
  first = np.minimum(centres.astype(np.int64), size - 1)
  share = np.clip(centres - first.astype(np.float32), 0, 1, dtype=np.float32)
  return first, np.minimum(first + 1, size - 1), share
