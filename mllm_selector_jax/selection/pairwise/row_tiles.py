"""Cuts an order of rows into tiles, and folds functions of two tiles over them."""

import collections
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from jaxtyping import Int

from mllm_selector_jax.selection.overseer import Keeper, Progress
from mllm_selector_jax.selection.pairwise.kernels import Tile
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows

SIZE = 1024  # rows of a tile, at most; 1,024 x 1,024 cosines stay in a core's cache
HELD_BYTES = 1 << 30  # of the tiles that a device keeps of one order


class Tiles:
  """Rows in an order, cut into tiles of one size, which devices hold if they fit.

  The size depends only on the number of rows; the last tile is padded.
  """

  def __init__(
    self,
    vectors: UnitRows,
    order: Int[np.ndarray, " n"],
    marks: Int[np.ndarray, " n"] | None = None,
    groups: Int[np.ndarray, " n"] | None = None,
    size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Describes the tiles; rows are read when a device needs them.

    Args:
      vectors: the rows of the pool.
      order: the numbers of the rows, in order.
      marks: the number by which each row is known; by default its place in the order.
      groups: the group of each row of the order; by default all are in group 0.
      size: the maximum of rows in a tile, by default `SIZE`.
      devices: the local devices that share the tiles; by default all.
    """
    count = len(order)
    self.size = max(1, min(size or SIZE, 1 << max(count - 1, 0).bit_length()))
    self.order = order
    self.devices = list(devices or jax.local_devices())
    self._vectors = vectors
    self._marks = np.arange(count) if marks is None else marks
    self._groups = np.zeros(count, np.int32) if groups is None else groups
    self._held: collections.OrderedDict[tuple[int, int], Tile] = (
      collections.OrderedDict()
    )
    self.most_held = max(2, HELD_BYTES // (4 * self.size * max(vectors.shape[1], 1)))

  def __len__(self) -> int:
    return -(-len(self.order) // self.size)

  def span(self, number: int) -> slice:
    """Returns the places of a tile's rows in the order."""
    return slice(number * self.size, min((number + 1) * self.size, len(self.order)))

  def count_rows(self, numbers: range) -> int:
    """Returns the number of rows in some tiles that follow one another."""
    return len(self.order[numbers.start * self.size : numbers.stop * self.size])

  def with_groups_of(self, number: int) -> range:
    """Returns the tiles that may hold rows of a tile's groups, which ascend."""
    here = self.span(number)
    first = np.searchsorted(self._groups, self._groups[here.start], side="left")
    last = np.searchsorted(self._groups, self._groups[here.stop - 1], side="right")
    return range(int(first) // self.size, (int(last) - 1) // self.size + 1)

  def on(self, number: int, device: int) -> Tile:
    """Returns a tile on a device, by the device's place in `devices`."""
    key = (number, device)
    tile = self._held.pop(key, None)
    if tile is None:
      tile = jax.device_put(self._read(number), self.devices[device])
    self._held[key] = tile
    if len(self._held) > self.most_held * len(self.devices):
      self._held.popitem(last=False)
    return tile

  def _read(self, number: int) -> Tile:
    here = self.span(number)
    values = np.zeros((self.size, self._vectors.shape[1]), np.float32)
    mark, group = np.full(self.size, -1, np.int32), np.full(self.size, -1, np.int32)
    count = here.stop - here.start
    values[:count] = self._vectors.rows(self.order[here])
    mark[:count], group[:count] = self._marks[here], self._groups[here]
    on_host: tuple[Any, Any, Any] = (values, mark, group)
    return Tile(*on_host)


def fold(
  function: Callable[[Any, Tile, Tile], Any],
  start: Any,
  left: Tiles,
  right: Tiles,
  among: Callable[[int], range] | None = None,
  progress: Progress | None = None,
  keeper: Keeper | None = None,
) -> list[Any]:
  """Folds a function over the tiles that each tile is compared with, in their order.

  Tile i of `left` is computed by device i modulo the number of devices. Several tiles
  of `left` are computed together, so that each tile of `right` is read once for all.

  Args:
    function: maps a state, a tile of `left` and one of `right` to the next state.
    start: the first state of a tile, as numpy arrays.
    left: the tiles to compute.
    right: the tiles that they are compared with.
    among: maps a tile of `left` to the numbers of the tiles of `right` that it is
      compared with; by default all.
    progress: called with the number of compared pairs of rows and the total.
    keeper: keeps the last states of tiles; one of the same arguments leads to the same.

  Returns:
    The last state of each tile of `left`, on its device or in memory.
  """
  devices, everything = left.devices, range(len(right))
  states = _restore(start, keeper) if keeper else []
  known = len(states)
  rest = range(known, len(left))
  states += [jax.device_put(start, devices[i % len(devices)]) for i in rest]
  pairs = [
    _length(left.span(i)) * right.count_rows(among(i) if among else everything)
    for i in range(len(left))
  ]
  total, done = sum(pairs), sum(pairs[:known])
  together = max(1, left.most_held // 2) * len(devices)

  def wait_for(waiting: list[Any], compared: int) -> None:
    nonlocal done
    jax.block_until_ready(waiting)
    done += compared
    if progress and compared:
      progress(done, total)

  if progress:
    progress(done, total)
  for first in range(known, len(left), together):
    panel = range(first, min(first + together, len(left)))
    waiting: list[Any] = []
    compared = 0
    for j, members in _by_right(panel, len(right), among):
      for i in members:
        device = i % len(devices)
        with alone(devices[device]):
          states[i] = function(states[i], left.on(i, device), right.on(j, device))
      # Two tiles of `right` in flight hide the transfers and bound the memory.
      wait_for(waiting, compared)
      waiting = [states[i] for i in members]
      compared = right.count_rows(range(j, j + 1)) * sum(
        _length(left.span(i)) for i in members
      )
    if progress or keeper:
      wait_for(waiting, compared)
    if keeper:
      states[panel.start : panel.stop] = jax.device_get(
        states[panel.start : panel.stop]
      )
      keeper.add(**_stack(states[panel.start : panel.stop]))
  return states


def _stack(states: list[Any]) -> dict[str, np.ndarray]:
  """Returns the leaves of states, of which each has as many, one above the other."""
  leaves = zip(*map(jax.tree.leaves, states), strict=True)
  return {str(number): np.stack(leaf) for number, leaf in enumerate(leaves)}


def _restore(start: Any, keeper: Keeper) -> list[Any]:
  """Returns the states that `_stack` made arrays of."""
  structure = jax.tree.structure(start)
  return [
    jax.tree.unflatten(structure, leaves)
    for kept in keeper.read()
    for leaves in zip(*(kept[str(n)] for n in range(len(kept))), strict=True)
  ]


def _by_right(panel, count, among):
  """Yields each tile of `right` with the tiles of a panel that are compared with it."""
  if among is None:
    yield from ((j, panel) for j in range(count))
    return
  members = collections.defaultdict(list)
  for i in panel:
    for j in among(i):
      members[j].append(i)
  yield from sorted(members.items())


def _length(part: slice) -> int:
  return part.stop - part.start


def gather(start: Any, left: Tiles, states: list[Any]) -> Any:
  """Joins the states of all tiles to arrays [n, ...] in the order of the rows.

  Args:
    start, left: as for `fold`.
    states: what it returned.
  """
  fetched = jax.device_get(states)
  count = len(left.order)
  return jax.tree.map(
    lambda empty, *parts: np.concatenate([empty[:0], *parts])[:count], start, *fetched
  )


def alone(device: jax.Device) -> AbstractContextManager:
  """Returns a context in which a function runs on one device of the run's mesh."""
  return jax.set_mesh(_mesh(device))


@functools.cache
def _mesh(device: jax.Device) -> Mesh:
  return Mesh(np.array([device]), ("tile",), axis_types=(AxisType.Auto,))
