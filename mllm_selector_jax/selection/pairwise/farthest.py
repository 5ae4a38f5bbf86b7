"""Farthest-first traversal of a whole pool, exact, in batches of candidates."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mllm_selector_jax.selection.overseer import NOTHING, Keeper, Progress, ignore
from mllm_selector_jax.selection.pairwise import kernels
from mllm_selector_jax.selection.pairwise.row_tiles import Tiles, alone, gather
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows

BATCH_ROWS = 1 << 13  # the rows farthest from all picks, from which the next are picked
BATCH_PICKS = 1 << 8  # the maximum of picks after which all rows are compared with them


class Traversal(NamedTuple):
  """Rows in the order in which they were picked.

  Attributes:
    picks: the places of the picks in the order of the rows.
    before: the highest cosine of each pick with those before it; -inf for the first.
    after: the highest cosine of each row with a pick.
  """

  picks: Int[np.ndarray, " k"]
  before: Float[np.ndarray, " k"]
  after: Float[np.ndarray, " n"]


def traverse(
  vectors: UnitRows,
  order: Int[np.ndarray, " n"],
  forced: int,
  count: int,
  batch_rows: int = BATCH_ROWS,
  batch_picks: int = BATCH_PICKS,
  devices: Sequence[jax.Device] | None = None,
  fits: Callable[[int], bool] = lambda row: True,
  closed: Callable[[], np.ndarray] | None = None,
  progress: Progress = ignore,
  keeper: Keeper = NOTHING,
) -> Traversal:
  """Picks the row whose highest cosine with the picks is lowest, repeatedly.

  Cosines with the picks only add up, so a row's highest one never falls. While the
  lowest of the batch, the `batch_rows` rows that were lowest when it was made, is not
  above the lowest of all others, it is the lowest of the whole pool. Only the batch is
  compared with each pick as it is made; the whole pool is compared with up to
  `batch_picks` of them at a time. The result is exact, and of equal rows the one that
  stands first is picked.

  Args:
    vectors: the rows of the pool.
    order: the rows to pick from.
    forced: the number of rows, the first ones, that are picked first.
    count: the number of rows to pick, at least `forced`.
    batch_rows: the number of rows in a batch.
    batch_picks: the maximum of picks from a batch.
    devices: the local devices that share the rows; by default all.
    fits: says whether a row, by its place in the order, may be picked after those that
      it said yes to. It is asked about all picks but the forced ones.
    closed: returns which rows can no longer be picked; by default there are none.
    progress: called with the number of picks and the number of rows to pick.
    keeper: keeps the picks and the highest cosines; one of the same arguments, with the
      same answers of `fits`, leads to the same result.
  """
  count = min(count, len(order))
  pool = _Pool(vectors, order, devices)
  picks = list(range(min(forced, count)))
  before = [-np.inf] * len(picks)
  for kept in keeper.read():
    picks, before = kept["picks"].tolist(), kept["before"].tolist()
    pool.best = kept["best"]
    answers = [fits(row) for row in picks[forced:]]
    assert all(answers), "rows that were picked fit again"
    break
  else:
    pool.compare(np.array(picks, np.int64), batch_picks)
  progress(len(picks), count)
  while len(picks) < count:
    best = pool.best if closed is None else np.where(closed(), np.inf, pool.best)
    most = min(count - len(picks), batch_picks, int(np.sum(best < np.inf)))
    if not most:
      break
    batch, limit, limit_place = _cut_batch(best, batch_rows)
    more, cosines = pool.pick(best, batch, limit, limit_place, most, batch_picks)
    # Picks after one that does not fit would be compared with it.
    number = next((n for n, row in enumerate(more) if not fits(int(row))), len(more))
    more, cosines = more[:number], cosines[:number]
    picks += more.tolist()
    before += cosines.tolist()
    pool.compare(more, batch_picks)
    keeper.replace(
      picks=np.array(picks, np.int64),
      before=np.array(before, np.float32),
      best=pool.best,
    )
    progress(len(picks), count)
  after = np.where(np.isposinf(pool.best), 1, pool.best)
  return Traversal(np.array(picks, np.int64), np.array(before, np.float32), after)


def _cut_batch(best, size) -> tuple[Int[np.ndarray, " m"], float, int]:
  """Returns the rows of the lowest values, and the lowest of the rest and its place."""
  if len(best) <= size:
    return np.arange(len(best)), np.inf, len(best)
  highest = np.partition(best, size - 1)[size - 1]
  inside = best < highest
  tied = np.flatnonzero(best == highest)
  room = size - int(inside.sum())
  inside[tied[:room]] = True
  outside = np.where(inside, np.inf, best)
  place = int(outside.argmin())
  return np.flatnonzero(inside), float(outside[place]), place


class _Pool:
  """The rows, and the highest cosine of each with a pick; inf for the picks."""

  def __init__(self, vectors, order, devices):
    self._vectors, self._order = vectors, order
    self._tiles = Tiles(vectors, order, devices=devices)
    self.best = np.full(len(order), -np.inf, np.float32)

  def compare(self, picks: Int[np.ndarray, " k"], together: int) -> None:
    """Compares all rows with picks, of which a tile holds up to `together`."""
    devices = self._tiles.devices
    start = np.full(self._tiles.size, -np.inf, np.float32)
    right = Tiles(self._vectors, self._order[picks], picks, None, together, devices)
    for j in range(len(right)):
      states = []
      for i in range(len(self._tiles)):
        device = i % len(devices)
        with alone(devices[device]):
          first = jax.device_put(start, devices[device])
          rows = self._tiles.on(i, device)
          states.append(kernels.highest(first, rows, right.on(j, device)))
      found = gather(start, self._tiles, states)
      np.maximum(self.best, found, out=self.best)
    self.best[picks] = np.inf

  def pick(self, best, batch, limit, limit_place, most, together):
    """Picks up to `most` rows of a batch, as long as no other row goes before them.

    Args:
      best: the highest cosine of each row with a pick; inf for rows not to be picked.
      batch: the places of the rows, ascending.
      limit: the lowest of the highest cosines of all other rows.
      limit_place: the first place at which another row has it.
      most: the maximum of picks.
      together: the size of the arrays of picks.

    Returns:
      The places of the picks, and their highest cosine with the picks before them.
    """
    device = self._tiles.devices[0]
    padded = 1 << max(len(batch) - 1, 0).bit_length()
    padding = padded - len(batch)
    values = np.pad(self._vectors.rows(self._order[batch]), [(0, padding), (0, 0)])
    best = np.pad(best[batch], (0, padding), constant_values=np.inf)
    place = np.pad(batch.astype(np.int32), (0, padding))
    inputs = jax.device_put((values, best, place), device)
    with alone(device):
      picked, cosines, number = jax.device_get(
        _pick(together, *inputs, np.float32(limit), limit_place, most)
      )
    return batch[picked[:number]], cosines[:number]


@functools.partial(jax.jit, static_argnums=0)
def _pick(
  together: int,
  values: Float[Array, "M D"],
  best: Float[Array, " M"],
  place: Int[Array, " M"],
  limit: Float[Array, ""],
  limit_place: Int[Array, ""],
  most: Int[Array, ""],
) -> tuple[Int[Array, " P"], Float[Array, " P"], Int[Array, ""]]:
  """Picks rows of a batch; see `_Pool.pick`. Returns them, padded, and their number."""

  def is_first(state):
    best, _, _, number = state
    row = jnp.argmin(best)
    before = (best[row] < limit) | ((best[row] == limit) & (place[row] < limit_place))
    return (number < most) & before

  def add(state):
    best, picked, cosines, number = state
    row = jnp.argmin(best)
    picked, cosines = picked.at[number].set(row), cosines.at[number].set(best[row])
    best = jnp.maximum(best, kernels.cosines(values, values[row][None, :])[:, 0])
    return best.at[row].set(jnp.inf), picked, cosines, number + 1

  picked = jnp.zeros(together, jnp.int32)
  start = (best, picked, jnp.zeros(together, jnp.float32), jnp.int32(0))
  _, picked, cosines, number = jax.lax.while_loop(is_first, add, start)
  return picked, cosines, number
