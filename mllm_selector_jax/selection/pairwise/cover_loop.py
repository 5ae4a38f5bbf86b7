"""Orders the rows of many groups by facility location, in one compiled loop.

The loop is Minoux's lazy greedy algorithm for a batch of groups at once. In each step
every group computes the gain of the row that is first by its bound, and takes the row
if it stays the first. All numbers are integers, so that the order is the same for any
batch and on any kind of device that computes the same cosines.
"""

import collections
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mllm_selector_jax.selection.pairwise import kernels
from mllm_selector_jax.selection.pairwise.row_tiles import alone
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows

LEAST_ROWS = 64  # groups are padded to a power of two, of at least this many rows
BATCH_BYTES = 1 << 28  # of the similarities of a batch of groups
HOST_BATCH_BYTES = 1 << 22  # instead of that on a CPU, for the sake of its cache
FORCED = 1 << 60  # the bound of forced rows, above all gains


class Batch(NamedTuple):
  """Groups of at most P rows, which stand in drawn order; the last ones are padding.

  Attributes:
    values: vectors of length 1, or 0 for padding.
    weight: how much it counts that each row is covered; 0 for padding.
    allowed: which rows are ordered.
    forced: the number of rows, the first ones, that go first.
  """

  values: Float[Array, "B P D"]
  weight: Int[Array, "B P"]
  allowed: Bool[Array, "B P"]
  forced: Int[Array, " B"]


def order_groups(
  vectors: UnitRows,
  parts: Sequence[Int[np.ndarray, " _"]],
  weights: Int[np.ndarray, " N"],
  allowed: Bool[np.ndarray, " N"],
  forced: Bool[np.ndarray, " N"],
  devices: Sequence[jax.Device] | None = None,
) -> Iterator[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
  """Yields each group's rows with the place of each in its group's order, from 0.

  The rows that stand first maximise, greedily, the sum over the group's rows of the
  row's weight times its cosine with the most similar of them, or 0 if it is negative.
  Of rows of equal gain, the one that stands first in its part is first.

  Args:
    vectors: the rows of the pool.
    parts: the rows of each group in drawn order, those of `forced` before the others.
    weights: how much it counts that each row of the pool is covered.
    allowed: which rows are ordered; the place of all others is -1.
    forced: which rows go before all others of their group.
    devices: the local devices that share the groups; by default all.
  """
  used = list(devices or jax.local_devices())
  host = used[0].platform == "cpu"
  waiting: collections.deque = collections.deque()
  batches = _divide(parts, HOST_BATCH_BYTES if host else BATCH_BYTES)
  with jax.enable_x64(True):
    for number, (size, count, members) in enumerate(batches):
      on_host: tuple[Any, Any, Any, Any] = (
        np.zeros((count, size, vectors.shape[1]), np.float32),
        np.zeros((count, size), np.int64),
        np.zeros((count, size), bool),
        np.zeros(count, np.int64),
      )
      batch = Batch(*on_host)
      for place, rows in enumerate(members):
        here = place, slice(len(rows))
        batch.values[here] = vectors.rows(rows)
        batch.weight[here], batch.allowed[here] = weights[rows], allowed[rows]
        batch.forced[place] = forced[rows].sum()
      device = used[number % len(used)]
      with alone(device):
        waiting.append((members, order_batch(jax.device_put(batch, device))))
      if len(waiting) > len(used):
        yield from _fetch(*waiting.popleft())
    while waiting:
      yield from _fetch(*waiting.popleft())


def _fetch(members, found):
  for rows, places in zip(members, np.asarray(found), strict=False):
    yield rows, places[: len(rows)]


def _divide(parts, most_bytes) -> Iterator[tuple[int, int, list[np.ndarray]]]:
  """Yields batches of groups of similar size: the padded size, their most, the rows."""
  by_size: dict[int, list[np.ndarray]] = collections.defaultdict(list)
  for rows in sorted(parts, key=len):
    by_size[max(LEAST_ROWS, 1 << (len(rows) - 1).bit_length())].append(rows)
  for size, groups in by_size.items():
    count = max(1, most_bytes // (4 * size * size))
    for start in range(0, len(groups), count):
      yield size, count, groups[start : start + count]


@jax.jit
def order_batch(batch: Batch) -> Int[Array, "B P"]:
  """Returns the place of each row in its group's order; -1 for rows that have none.

  Needs 64-bit integers to be enabled, since gains are sums of products of a similarity
  of 21 bits and a weight.
  """
  # One group after the other, so that no cosine depends on the batch.
  similarity = jax.lax.map(_compare, batch.values)
  count, size = batch.weight.shape
  place, group = jnp.arange(size)[None, :], jnp.arange(count)
  whole = (similarity * batch.weight[:, None, :]).sum(2)
  bound = jnp.where(batch.allowed, whole, -1)
  bound = jnp.where(place < batch.forced[:, None], FORCED - place, bound)
  total = batch.allowed.sum(1)

  def unfinished(state):
    return (state[2] < total).any()

  def step(state):
    best, bound, taken, turn = state
    row = bound.argmax(1)
    ours = similarity[group, row]
    gain = (jnp.maximum(ours - best, 0) * batch.weight).sum(1)
    gain = jnp.where(taken < batch.forced, bound[group, row], gain)
    bound = bound.at[group, row].set(gain)
    # Gains only fall, so a row that is still the first after its update is the best.
    take = (bound.argmax(1) == row) & (taken < total)
    best = jnp.where(take[:, None], jnp.maximum(best, ours), best)
    bound = bound.at[group, row].set(jnp.where(take, -1, gain))
    turn = turn.at[group, row].set(jnp.where(take, taken, turn[group, row]))
    return best, bound, taken + take, turn

  start = (
    jnp.zeros((count, size), jnp.int32),
    bound,
    jnp.zeros(count, jnp.int64),
    jnp.full((count, size), -1, jnp.int64),
  )
  return jax.lax.while_loop(unfinished, step, start)[3]


def _compare(values: Float[Array, "P D"]) -> Int[Array, "P P"]:
  """Returns the cosines of all pairs in multiples of 2^-20, 0 if negative."""
  units = kernels.cosines(values, values) * kernels.GRID
  return jnp.maximum(units, 0).astype(jnp.int32)
