"""Divides rows into leaders and followers, which are like a leader before them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mllm_selector_jax.selection.overseer import NOTHING, Keeper, Progress, ignore
from mllm_selector_jax.selection.pairwise import kernels
from mllm_selector_jax.selection.pairwise.row_tiles import Tiles, alone
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows


def find_followers(
  vectors: UnitRows,
  order: Int[np.ndarray, " n"],
  groups: Int[np.ndarray, " n"],
  fixed: Bool[np.ndarray, " n"],
  cosine: float,
  most_leaders: int | None = None,
  devices: Sequence[jax.Device] | None = None,
  progress: Progress = ignore,
  keeper: Keeper = NOTHING,
) -> Bool[np.ndarray, " n"]:
  """Marks rows whose cosine with an earlier leader of their group is above a threshold.

  All rows that are not marked are leaders. A row is compared with the leaders before it
  and not with followers, so that the leaders are streamed, whatever their number.

  Args:
    vectors: the rows of the pool.
    order: the rows to compare, sorted by group.
    groups: the group of each row of the order, ascending.
    fixed: which rows of the order are never marked.
    cosine: the threshold.
    most_leaders: the number of leaders after which the search ends, and rows stay
      unmarked; by default it goes through all rows.
    devices: the local devices that share the leaders; by default all.
    progress: called with the number of rows that were judged and the total.
    keeper: keeps what was found; one of the same arguments leads to the same result.
  """
  tiles = Tiles(vectors, order, groups=groups, devices=devices)
  leaders = _Leaders(vectors, order, groups, tiles)
  follows = np.zeros(len(order), bool)
  kept = [follows[:0], *(part["follows"] for part in keeper.read())]
  known = np.concatenate(kept)
  follows[: len(known)] = known
  leaders.extend(np.flatnonzero(~known))
  progress(len(known), len(order))
  for number in range(-(-len(known) // tiles.size), len(tiles)):
    here = tiles.span(number)
    count = here.stop - here.start
    far = leaders.highest(number)[:count] > cosine
    tile = tiles.on(number, 0)
    with alone(tiles.devices[0]):
      inside = np.asarray(_cosines_before(tile))[:count, :count] > cosine
    leads = _resolve(far, inside, fixed[here])
    if most_leaders is not None and leaders.count + leads.sum() >= most_leaders:
      last = np.flatnonzero(np.cumsum(leads) + leaders.count >= most_leaders)
      leads[last] = True  # those after the last leader are not judged
      follows[here] = ~leads
      return follows
    follows[here] = ~leads
    leaders.extend(here.start + np.flatnonzero(leads))
    keeper.add(follows=~leads)
    progress(here.stop, len(order))
  return follows


@jax.jit
def _cosines_before(tile: kernels.Tile) -> Float[Array, "T T"]:
  """Returns the cosines with earlier rows of the tile; -2 for all other pairs."""
  compared = kernels.earlier_rows(tile, tile)
  return jnp.where(compared, kernels.cosines(tile.values, tile.values), -2)


def _resolve(far, inside, fixed) -> Bool[np.ndarray, " n"]:
  """Returns which rows of a tile lead.

  Args:
    far: [n] whether a leader before the tile is near.
    inside: [n, n] whether an earlier row of the tile is near.
    fixed: [n] which rows lead in any case.
  """
  leads = ~far | fixed
  for row in np.flatnonzero(inside.any(1) & leads & ~fixed):
    leads[row] = not (inside[row] & leads).any()
  return leads


class _Leaders:
  """The leaders found so far, in tiles of which only the last one is not full."""

  def __init__(self, vectors, order, groups, tiles):
    self.count = 0
    self._vectors, self._order, self._groups, self._tiles = (
      vectors,
      order,
      groups,
      tiles,
    )
    # Filled as leaders are found; a tile is read when it is full.
    self._place = np.zeros(len(order), np.int64)
    self._row, self._group = np.zeros_like(self._place), np.zeros_like(self._place)
    self._full = self._cut(slice(None))

  def extend(self, places: Int[np.ndarray, " n"]) -> None:
    """Adds leaders by their places in the order, which ascend."""
    here = slice(self.count, self.count + len(places))
    self._place[here], self._row[here] = places, self._order[places]
    self._group[here] = self._groups[places]
    self.count = here.stop

  def _cut(self, part: slice) -> Tiles:
    return Tiles(
      self._vectors,
      self._row[part],
      self._place[part],
      self._group[part],
      self._tiles.size,
      self._tiles.devices,
    )

  def highest(self, number: int) -> Float[np.ndarray, " T"]:
    """Returns the highest cosine of each row of a tile with a leader before it."""
    size, devices = self._tiles.size, self._tiles.devices
    group = self._groups[self._tiles.span(number).start]
    # Leaders are sorted by group, and those of earlier groups are not compared.
    first = int(np.searchsorted(self._group[: self.count], group)) // size
    full = self.count // size
    best = [np.full(size, -np.inf, np.float32)]
    for tile in range(first, -(-self.count // size)):
      device = tile % len(devices)
      with alone(devices[device]):
        if tile < full:
          leaders = self._full.on(tile, device)
        else:
          leaders = self._cut(slice(tile * size, self.count)).on(0, device)
        start = jax.device_put(best[0], devices[device])
        rows = self._tiles.on(number, device)
        best.append(kernels.highest(start, rows, leaders, mask=kernels.earlier_rows))
    return np.max(jax.device_get(best), 0)
