"""Spreads the packed rows of a step over shards that hold about equally many tiles.

A batch's arrays have as many places for tiles and supervised tokens in every shard
(assembly.Shape), so that the fullest shard decides how many there are. Whole rows are
spread first, and then samples are exchanged between rows of different shards.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

EMPTY = -1  # stands for a row of padding
NEAR = 1.01  # tiles of the fullest shard, over the mean, that are few enough


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


class Samples(NamedTuple):
  """The samples of a step.

  Attributes:
    tokens, tiles, supervised: of each.
  """

  tokens: Int[np.ndarray, " n"]
  tiles: Int[np.ndarray, " n"]
  supervised: Int[np.ndarray, " n"]


def exchange_samples(
  row_of: Int[np.ndarray, " n"], samples: Samples, length: int, shards: int, height: int
) -> Int[np.ndarray, " n"]:
  """Lowers the most tiles of a shard by moving samples between rows.

  A sample of the fullest shard goes to another shard, or changes places with one of
  it, where that lowers the tiles of the fuller of both the most, until none does or
  the fullest is near the mean. No row gets too long, and no shard more supervised
  tokens than the one that had the most.

  Args:
    row_of: the row of each sample; the rows of a shard follow each other.
    samples: what they hold.
    length: tokens of a row.
    shards: how many.
    height: rows of a shard, empty ones included.

  Returns:
    The row of each sample.
  """
  tokens, tiles, supervised = samples
  row_of = row_of.copy()
  room = length - _sum(row_of, tokens, shards * height)
  held = _sum(row_of // height, tiles, shards)
  learned = _sum(row_of // height, supervised, shards)
  most_learned, enough = learned.max(), NEAR * held.sum() / shards
  while held.max() > enough:
    fullest = int(held.argmax())
    mine = np.flatnonzero((row_of // height == fullest) & (tiles > 0))
    # Samples of other shards, and their rows' ends, which hold nothing.
    others = np.flatnonzero(row_of // height != fullest)
    ends = np.flatnonzero(np.arange(shards * height) // height != fullest)
    rows = np.concatenate([row_of[others], ends])
    nothing = np.zeros(len(ends), np.int64)
    longer, more, taught = (
      values[mine][:, None] - np.concatenate([values[others], nothing])
      for values in (tokens, tiles, supervised)
    )
    shard = rows // height
    larger = np.maximum(held[fullest] - more, held[shard] + more)
    fits = (longer <= room[rows]) & (-longer <= room[row_of[mine]][:, None])
    fits &= learned[shard] + taught <= most_learned
    fits &= learned[fullest] - taught <= most_learned
    larger = np.where(fits, larger, held[fullest])
    best = int(larger.argmin()) if larger.size else 0
    if not larger.size or larger.flat[best] >= held[fullest]:
      break
    first, second = np.unravel_index(best, larger.shape)
    here, there = row_of[mine[first]], rows[second]
    row_of[mine[first]] = there
    if second < len(others):
      row_of[others[second]] = here
    for values, change, at in (
      (room, longer, (here, there)),
      (held, -more, (fullest, shard[second])),
      (learned, -taught, (fullest, shard[second])),
    ):
      values[at[0]] += change[first, second]
      values[at[1]] -= change[first, second]
  return row_of


def _sum(
  group: Int[np.ndarray, " n"], values: Int[np.ndarray, " n"], groups: int
) -> Int[np.ndarray, " g"]:
  return np.bincount(group, values, minlength=groups).astype(np.int64)
