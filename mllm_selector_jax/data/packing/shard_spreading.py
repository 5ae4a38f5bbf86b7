"""Spreads the packed rows of a step over shards that hold about equally many tiles.

A batch's arrays have as many places for tiles and supervised tokens in every shard
(assembly.Shape), so that the fullest shard decides how many there are.
"""

import numpy as np
from jaxtyping import Int

EMPTY = -1  # stands for a row of padding


def spread(
  tiles: Int[np.ndarray, " r"], supervised: Int[np.ndarray, " r"], shards: int
) -> Int[np.ndarray, "w h"]:
  """Assigns rows to shards, each of which has as many places for rows.

  The rows of most tiles are assigned first, each to the shard that holds the fewest.
  Rows of two shards then change places while that lowers the most tiles of a shard,
  and after that, without raising it, the most supervised tokens. Ties are broken by
  the numbers of rows and shards, so that equal rows are spread equally everywhere.

  Args:
    tiles, supervised: what each row holds.
    shards: how many.

  Returns:
    The rows of each shard, ascending, and then `EMPTY` for places without a row.
  """
  count = len(tiles)
  height = -(-count // shards)
  # Empty places are rows without content, so that a swap with one moves a row.
  tiles, supervised = (
    np.concatenate([values, np.zeros(shards * height - count)]).astype(np.int64)
    for values in (tiles, supervised)
  )
  places = _assign_largest_first(tiles, supervised, shards)
  if shards > 1 and height > 1:
    most_tiles = int(_level(places, tiles, tiles, None))
    _level(places, supervised, tiles, most_tiles)
  places.sort(axis=1)
  return np.where(places < count, places, EMPTY)


def _assign_largest_first(
  tiles: Int[np.ndarray, " p"], supervised: Int[np.ndarray, " p"], shards: int
) -> Int[np.ndarray, "w h"]:
  """Gives each row, in order of its tiles, to the shard with the fewest tiles."""
  height = len(tiles) // shards
  held: list[list[int]] = [[] for _ in range(shards)]
  sums = [(0, 0, shard) for shard in range(shards)]
  for row in np.lexsort((-supervised, -tiles)).tolist():
    tile_sum, target_sum, shard = min(one for one in sums if len(held[one[2]]) < height)
    held[shard].append(row)
    sums[shard] = (
      tile_sum + int(tiles[row]),
      target_sum + int(supervised[row]),
      shard,
    )
  return np.array(held, np.int64).reshape(shards, height)


def _level(
  places: Int[np.ndarray, "w h"],
  values: Int[np.ndarray, " p"],
  tiles: Int[np.ndarray, " p"],
  most_tiles: int | None,
) -> int:
  """Lowers the largest sum of a shard by swaps of two rows, in place.

  Args:
    places: the rows of each shard, which are changed.
    values: what is summed, of each row.
    tiles: of each row.
    most_tiles: of a shard; no swap exceeds it. None is no limit.

  Returns:
    The largest sum.
  """
  shards = len(places)
  lowest = -(-int(values.sum()) // shards)
  while True:
    sums, tile_sums = values[places].sum(1), tiles[places].sum(1)
    fullest = int(sums.argmax())
    if sums[fullest] <= lowest:
      return int(sums[fullest])
    # What the fullest shard loses by each swap: its row, the other shard, its row.
    lost = values[places[fullest]][:, None, None] - values[places]
    larger = np.maximum(sums[fullest] - lost, sums[:, None] + lost)
    larger[:, fullest] = sums[fullest]
    if most_tiles is not None:
      moved = tiles[places[fullest]][:, None, None] - tiles[places]
      exceeds = tile_sums[:, None] + moved > most_tiles
      exceeds |= tile_sums[fullest] - moved > most_tiles
      larger[exceeds] = sums[fullest]
    best = int(larger.argmin())
    if larger.flat[best] >= sums[fullest]:
      return int(sums[fullest])
    mine, shard, other = np.unravel_index(best, larger.shape)
    swapped = places[shard, other], places[fullest, mine]
    places[fullest, mine], places[shard, other] = swapped
