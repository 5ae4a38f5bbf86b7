"""k-means on the accelerator: deterministic, in fixed chunks of rows.

Rows are sorted by a draw from their content and cut into chunks whose size depends
only on the number of clusters (and is smaller for a small pool). Each chunk is computed
by one device, and the sums of the chunks are added in float64 in a fixed order. On one
kind of device the result is therefore bit-identical for any number of devices and any
order of the pool. On another kind of device, a row halfway between two centres may be
assigned to the other one.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh
from jaxtyping import Array, Bool, Float, Int, UInt32, UInt64

from mllm_selector_jax.selection import draws
from mllm_selector_jax.types import InputError

CHUNK_DISTANCES = 1 << 22  # the maximum of distances in a chunk: 16 MB
CLUSTER_ROWS = 32  # the least rows of a cluster on average, if there are few rows
SAMPLE_ROWS = 64  # rows per cluster in the sample that the first centres are drawn from
RESTARTS = 64  # the maximum of empty clusters that get a new centre in an iteration
RESTART_ROWS = (
  1 << 15
)  # rows farthest from their centres, which new ones are taken from
DEVICE_BYTES = 4 << 30  # embeddings up to this size stay on the devices
FULL = jax.lax.Precision.HIGHEST  # near-ties would depend on errors of bf16 or TF32


class Clusters(NamedTuple):
  """Clusters of N rows; no cluster is empty.

  Attributes:
    labels: the cluster of each row, that of its nearest centre.
    centres: the centres, in the space of the rows that were clustered (scaled to
      length 1, if `normalise` was set).
    inertia: the sum of squared distances of the rows to their centres.
    iterations: the number of iterations.
  """

  labels: Int[np.ndarray, " N"]
  centres: Float[np.ndarray, "K D"]
  inertia: float
  iterations: int


def default_clusters(rows: int) -> int:
  """Returns 50 clusters up to 20,000 rows, and sqrt(rows) above.

  Small pools have fewer: one for each `CLUSTER_ROWS` rows, since smaller clusters are
  not judged for wrong answers. The smallest have up to four, of 8 rows or more.
  """
  clusters = 50 if rows <= 20_000 else round(rows**0.5)
  return max(1, min(clusters, rows // 8, max(4, rows // CLUSTER_ROWS)))


def kmeans(
  embeddings: Float[np.ndarray, "N D"],
  clusters: int,
  key: UInt64[np.ndarray, " N"] | None = None,
  rng: int = 0,
  normalise: bool = True,
  tolerance: float = 1e-4,
  most_iterations: int = 50,
  devices: list[jax.Device] | None = None,
) -> Clusters:
  """Clusters rows by Lloyd's iterations, starting from greedy k-means++.

  Args:
    embeddings: one vector for each row.
    clusters: K; at most as many as there are rows.
    key: content hashes, so that the result does not depend on the order of the rows;
      by default the row numbers.
    rng: seed of the draws.
    normalise: whether rows are scaled to length 1 first. Hidden states after a final
      norm have nearly equal lengths anyway, but a mean over several turns is shorter
      the more the turns differ, and rows should not be clustered by that.
    tolerance: the relative fall of inertia at or below which the iteration stops.
    most_iterations: the maximum of iterations.
    devices: the local devices that share the chunks; by default all.

  Raises:
    InputError: an embedding is not finite.
  """
  rows = len(embeddings)
  clusters = max(1, min(clusters, rows))
  if rows == 0:
    empty = np.zeros((0, embeddings.shape[1]), np.float32)
    return Clusters(np.zeros(0, np.int32), empty, 0.0, 0)
  key = np.arange(rows, dtype=np.uint64) if key is None else key
  order = np.argsort(draws.draw(rng, key, "k-means"), kind="stable")
  pool = _Chunks(embeddings, order, clusters, normalise, devices)
  centres = pool.first_centres(clusters, rng)

  previous = np.inf
  for iteration in range(1, most_iterations + 1):
    labels, distances, sums = pool.assign(centres)
    inertia = float(distances.astype(np.float64).sum())
    sizes = np.bincount(labels, minlength=clusters)
    vacant = np.flatnonzero(sizes == 0)
    far = pool.farthest(distances, len(vacant))
    settled = previous - inertia <= tolerance * previous
    if iteration > 1 and settled and not len(far):
      break
    previous = inertia
    filled = sizes > 0
    centres[filled] = (sums[filled] / sizes[filled, None]).astype(np.float32)
    centres[vacant[: len(far)]] = far
  else:
    labels, distances, _ = pool.assign(centres)
    inertia = float(distances.astype(np.float64).sum())
    sizes = np.bincount(labels, minlength=clusters)

  filled = sizes > 0
  renumbered = np.cumsum(filled) - 1
  result = np.empty(rows, np.int32)
  result[order] = renumbered[labels]
  return Clusters(result, centres[filled] + pool.mean, inertia, iteration)


class _Chunks:
  """The rows in drawn order, cut into chunks that are distributed over the devices."""

  def __init__(self, embeddings, order, clusters, normalise, devices):
    rows = len(order)
    size = max(256, min(1 << 16, CHUNK_DISTANCES // clusters))
    self.size = min(1 << (size.bit_length() - 1), 1 << (rows - 1).bit_length())
    self.size = max(self.size, 1)
    self._embeddings, self._order, self._normalise = embeddings, order, normalise
    self._starts = range(0, rows, self.size)
    self._devices = devices or jax.local_devices()
    self._kept = None
    self.mean = np.zeros(embeddings.shape[1], np.float32)
    total = np.zeros(embeddings.shape[1], np.float64)
    for start in self._starts:
      total += self.rows(np.arange(start, min(start + self.size, rows))).sum(
        0, dtype=np.float64
      )
    # Subtracting the mean leaves distances as they are, but |x|^2 - 2xc + |c|^2 is
    # then more accurate.
    self.mean = (total / rows).astype(np.float32)
    if rows * embeddings.shape[1] * 4 <= DEVICE_BYTES:
      self._kept = [self._put(i) for i in range(len(self._starts))]

  def rows(self, places: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n D"]:
    """Returns rows by place in the drawn order, scaled if asked, minus the mean."""
    values = np.asarray(self._embeddings[self._order[places]], np.float32)
    if not np.isfinite(values).all():
      line = self._order[places[int(np.argmin(np.isfinite(values).all(1)))]]
      raise InputError(
        f"The embedding of line {line} of the scores is not finite; run the score stage"
        " again, or group by something other than kmeans."
      )
    if self._normalise:
      length = np.sqrt(np.sum(np.square(values, dtype=np.float64), 1, keepdims=True))
      values = (values / np.maximum(length, 1e-30)).astype(np.float32)
    return values - self.mean[None, :]

  def _put(self, index: int):
    start = self._starts[index]
    values = self.rows(np.arange(start, min(start + self.size, len(self._order))))
    valid = np.arange(self.size) < len(values)
    values = np.pad(values, [(0, self.size - len(values)), (0, 0)])
    device = self._devices[index % len(self._devices)]
    return jax.device_put((values, valid), device)

  def farthest(
    self, distances: Float[np.ndarray, " N"], count: int
  ) -> Float[np.ndarray, "n D"]:
    """Returns up to `count` rows far from their centres and from each other.

    Args:
      distances: the squared distance of each row to its centre, in drawn order.
      count: the number of rows; at most `RESTARTS` are returned.
    """
    count = min(count, RESTARTS)
    places = np.argsort(-distances, kind="stable")[: RESTART_ROWS if count else 0]
    nearest, values = distances[places], self.rows(places)
    restarts: list[np.ndarray] = []
    while len(restarts) < count and nearest.max(initial=0) > 0:
      restarts.append(values[int(nearest.argmax())])
      squared = np.square(values - restarts[-1][None, :]).sum(1)
      nearest = np.minimum(nearest, squared)
    return np.array(restarts, np.float32).reshape(len(restarts), values.shape[1])

  def first_centres(self, clusters: int, rng: int) -> Float[np.ndarray, "K D"]:
    """Chooses centres by greedy k-means++ from the first rows of the drawn order."""
    count = min(len(self._order), max(SAMPLE_ROWS * clusters, 1 << 14))
    sample = self.rows(np.arange(count))
    padded = 1 << (count - 1).bit_length()
    valid = np.arange(padded) < count
    sample = np.pad(sample, [(0, padded - count), (0, 0)])
    with jax.set_mesh(_alone(self._devices[0])):
      picked = _plus_plus(clusters, sample, valid, np.uint32(rng & 0xFFFFFFFF))
    return sample[np.asarray(picked)].copy()

  def assign(self, centres: Float[np.ndarray, "K D"]):
    """Assigns each row to its nearest centre.

    Returns:
      Labels [N], squared distances [N], and the sums [K, D] of each cluster's rows,
      in float64.
    """
    results = []
    for index in range(len(self._starts)):
      device = self._devices[index % len(self._devices)]
      chunk = self._kept[index] if self._kept else self._put(index)
      with jax.set_mesh(_alone(device)):
        results.append(_assign(*chunk, jax.device_put(centres, device)))
      # Two chunks in flight per device hide the transfers and bound the memory.
      if index >= 2 * len(self._devices):
        jax.block_until_ready(results[index - 2 * len(self._devices)])
    results = jax.device_get(results)
    rows = len(self._order)
    sums = np.zeros(centres.shape, np.float64)
    for _, _, part in results:
      sums += part
    labels = np.concatenate([part for part, _, _ in results])[:rows]
    return labels, np.concatenate([part for _, part, _ in results])[:rows], sums


@functools.cache
def _alone(device: jax.Device) -> Mesh:
  return Mesh(np.array([device]), ("chunk",), axis_types=(AxisType.Auto,))


@jax.jit
def _assign(
  values: Float[Array, "n D"], valid: Bool[Array, " n"], centres: Float[Array, "K D"]
) -> tuple[Int[Array, " n"], Float[Array, " n"], Float[Array, "K D"]]:
  """Returns each row's nearest centre and squared distance, and the clusters' sums.

  Of several nearest centres the first is taken.
  """
  product = jnp.dot(values, centres.T, precision=FULL)
  half = 0.5 * jnp.sum(jnp.square(centres), 1)
  labels = jnp.argmax(product - half[None, :], axis=1).astype(jnp.int32)
  # Computed from differences, since the distance to a centre equal to the row must be
  # exactly 0.
  distances = jnp.sum(jnp.square(values - centres[labels]), 1)

  # On a CPU segment_sum adds in a fixed order and is ten times faster than a product
  # with the one-hot matrix; on a GPU its order of additions is not fixed.
  def scatter(values, labels):
    return jax.ops.segment_sum(values, labels, len(centres))

  def multiply(values, labels):
    member = jax.nn.one_hot(labels, len(centres), dtype=values.dtype, axis=0)
    return jnp.dot(member, values, precision=FULL)

  counted = jnp.where(valid[:, None], values, 0)
  sums = jax.lax.platform_dependent(counted, labels, cpu=scatter, default=multiply)
  return labels, distances, sums


@functools.partial(jax.jit, static_argnums=0)
def _plus_plus(
  clusters: int,
  sample: Float[Array, "n D"],
  valid: Bool[Array, " n"],
  rng: UInt32[Array, ""],
) -> Int[Array, " K"]:
  """Chooses rows of a sample as first centres (Arthur and Vassilvitskii, 2007).

  In the greedy form, a few rows are drawn in proportion to their squared distance to
  the nearest centre so far, and the one that lowers the sum of distances most is taken.

  Args:
    clusters: K.
    sample: rows of the pool, in drawn order, followed by padding.
    valid: which rows of the sample are not padding.
    rng: seed of the draws.

  Returns:
    The places of the centres in the sample.
  """
  trials = 2 + max(1, clusters).bit_length()
  trials = min(trials, len(sample))
  norms = jnp.sum(jnp.square(sample), 1)
  base = jax.random.key(rng)

  def distances_to(picked):
    product = jnp.dot(sample, sample[picked].T, precision=FULL)
    squared = norms[:, None] - 2 * product + norms[picked][None, :]
    return jnp.where(valid[:, None], jnp.maximum(squared, 0), 0)

  def step(index, state):
    picked, nearest = state
    noise = jax.random.gumbel(jax.random.fold_in(base, index), (len(sample),))
    weight = jnp.where(valid & (nearest > 0), jnp.log(nearest) + noise, -jnp.inf)
    candidates = jax.lax.top_k(weight, trials)[1]
    after = jnp.minimum(nearest[:, None], distances_to(candidates))
    best = jnp.argmin(after.sum(0))
    return picked.at[index].set(candidates[best]), after[:, best]

  # The rows are in drawn order, so the first row is a random one.
  picked = jnp.zeros(clusters, jnp.int32)
  nearest = distances_to(picked[:1])[:, 0]
  return jax.lax.fori_loop(1, clusters, step, (picked, nearest))[0]
