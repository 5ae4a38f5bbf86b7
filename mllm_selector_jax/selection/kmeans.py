"""k-means on the accelerator: deterministic, in fixed chunks of rows.

Rows are sorted by a draw from their content and cut into chunks whose size depends
only on the numbers of rows and clusters. Each chunk is computed by one device, and the
sums of the chunks are added in float64 in a fixed order. On one kind of device the
result is therefore bit-identical for any number of devices and any order of the pool.
On another kind of device, a row halfway between two centres may be assigned to the
other one.

In the first passes over the rows the centres move several times: after each part of
the rows, to the means of the rows as they are assigned at that moment. A pass by parts
lowers the inertia about as much as two or three of Lloyd's iterations. Each pass has
half as many parts as the one before, and from the pass of a single part on the
iterations are Lloyd's.
"""

import collections
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh
from jaxtyping import Array, Bool, Float, Int, UInt64

from mllm_selector_jax.selection import draws, first_centres, overseer
from mllm_selector_jax.selection.cluster_passes import Pass, read_pass
from mllm_selector_jax.selection.pairwise.unit_rows import Matrix
from mllm_selector_jax.types import InputError

CHUNK_DISTANCES = 1 << 22  # the maximum of distances in a chunk: 16 MB
BLOCK_ROWS = 256  # rows that a CPU compares at a time, for the sake of its cache
CLUSTER_ROWS = 32  # the least rows of a cluster on average, if there are few rows
SAMPLE_ROWS = 32  # rows per cluster in the sample that the first centres are drawn from
LEAST_SAMPLE = 1 << 13  # rows in that sample, and of the mean, if there are as many
MOST_PARTS = 8  # of the first pass; a power of 2
PART_ROWS = 24  # the least rows per cluster in a part: means of fewer are noise
LEAST_CHUNKS = 16  # if there are rows enough, so that devices share the work of a part
RESTARTS = 64  # the maximum of empty clusters that get a new centre in an iteration
RESTART_ROWS = (
  1 << 15
)  # rows farthest from their centres, which new ones are taken from
DEVICE_BYTES = 4 << 30  # embeddings up to this size stay on the devices
HOST_BYTES = 5 << 28  # instead of that where the devices are the host's: 1.25 GB
FULL = jax.lax.Precision.HIGHEST  # near-ties would depend on errors of bf16 or TF32


class Clusters(NamedTuple):
  """Clusters of N rows; no cluster is empty.

  Attributes:
    labels: the cluster of each row, that of its nearest centre.
    centres: the centres, in the space of the rows that were clustered (scaled to
      length 1, if `normalise` was set).
    inertia: the sum of squared distances of the rows to their centres.
    iterations: the number of passes over the rows.
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
  embeddings: Float[np.ndarray, "N D"] | Matrix,
  clusters: int,
  key: UInt64[np.ndarray, " N"] | None = None,
  rng: int = 0,
  normalise: bool = True,
  tolerance: float = 1e-4,
  most_iterations: int = 50,
  devices: list[jax.Device] | None = None,
  watch: overseer.Watch = overseer.NOBODY.watch,
  keeper: overseer.Keeper = overseer.NOTHING,
) -> Clusters:
  """Clusters rows by passes of Lloyd's kind, starting from greedy k-means++.

  Args:
    embeddings: one vector for each row; memory-mapped ones are read by chunks.
    clusters: K; at most as many as there are rows.
    key: content hashes, so that the result does not depend on the order of the rows;
      by default the row numbers.
    rng: seed of the draws.
    normalise: whether rows are scaled to length 1 first. Hidden states after a final
      norm have nearly equal lengths anyway, but a mean over several turns is shorter
      the more the turns differ, and rows should not be clustered by that.
    tolerance: the relative fall of inertia in a pass of one part that ends it.
    most_iterations: the maximum of passes that move centres.
    devices: the local devices that share the chunks; by default all.
    watch: called with the title of each pass, for a function of the rows done and all.
    keeper: keeps the last pass; one of the same arguments leads to the same result.

  Raises:
    InputError: an embedding is not finite.
  """
  rows = embeddings.shape[0]
  clusters = max(1, min(clusters, rows))
  if rows == 0:
    empty = np.zeros((0, embeddings.shape[1]), np.float32)
    return Clusters(np.zeros(0, np.int32), empty, 0.0, 0)
  key = np.arange(rows, dtype=np.uint64) if key is None else key
  order = np.argsort(draws.draw(rng, key, "k-means"), kind="stable")
  pool = _Chunks(embeddings, order, clusters, normalise, devices)
  made = read_pass(keeper)
  if made is None:
    centres = pool.first_centres(clusters, rng)
    made = Pass(0, centres, *pool.make_sums(clusters), np.inf)
  before, centres, sums, sizes, previous = made
  iteration = before
  for iteration in range(before + 1, most_iterations + 1):
    with watch(f"pass {iteration}") as progress:
      for part in range(len(sums)):
        if part:
          centres = _move(centres, sums, sizes)
        labels, distances = pool.assign(centres, part, sums, sizes, progress)
    inertia = float(distances.astype(np.float64).sum())
    vacant = np.flatnonzero(sizes.sum(0) == 0)
    far = pool.farthest(distances, len(vacant))
    settled = len(sums) == 1 and previous - inertia <= tolerance * previous
    if iteration > 1 and settled and not len(far):
      break
    previous = inertia
    centres = _move(centres, sums, sizes)
    centres[vacant[: len(far)]] = far
    if len(sums) > 1:
      sums, sizes = sums[::2] + sums[1::2], sizes[::2] + sizes[1::2]
    keeper.replace(**Pass(iteration, centres, sums, sizes, previous)._asdict())
  else:
    sums, sizes = sums.sum(0, keepdims=True), sizes.sum(0, keepdims=True)
    with watch("labels") as progress:
      labels, distances = pool.assign(centres, 0, sums, sizes, progress)
    inertia = float(distances.astype(np.float64).sum())

  filled = sizes.sum(0) > 0
  renumbered = np.cumsum(filled) - 1
  result = np.empty(rows, np.int32)
  result[order] = renumbered[labels]
  return Clusters(result, centres[filled] + pool.mean, inertia, iteration)


def _move(
  centres: Float[np.ndarray, "K D"],
  sums: Float[np.ndarray, "P K D"],
  sizes: Int[np.ndarray, "P K"],
) -> Float[np.ndarray, "K D"]:
  """Returns the means of the clusters' rows; an empty cluster keeps its centre."""
  total, size = sums.sum(0), sizes.sum(0)
  means = total / np.maximum(size, 1)[:, None]
  return np.where(size[:, None] > 0, means, centres).astype(np.float32)


class _Chunks:
  """The rows in drawn order, cut into chunks that are distributed over the devices."""

  def __init__(self, embeddings, order, clusters, normalise, devices):
    rows = len(order)
    size = min(1 << 16, CHUNK_DISTANCES // clusters, rows // LEAST_CHUNKS)
    size = 1 << (max(256, size).bit_length() - 1)
    self.size = min(size, 1 << (rows - 1).bit_length())
    self._embeddings, self._order, self._normalise = embeddings, order, normalise
    self._starts = range(0, rows, self.size)
    self._devices = devices or jax.local_devices()
    self._labels, self._distances = np.zeros(rows, np.int32), np.zeros(rows, np.float32)
    self._kept = None
    self.mean = np.zeros(embeddings.shape[1], np.float32)
    total = np.zeros(embeddings.shape[1], np.float64)
    drawn = min(rows, LEAST_SAMPLE)
    for start in range(0, drawn, self.size):
      part = self.rows(np.arange(start, min(start + self.size, drawn)))
      total += part.sum(0, dtype=np.float64)
    # Subtracting a vector leaves distances as they are, and |x|^2 - 2xc + |c|^2 is more
    # accurate if it is near the mean.
    self.mean = (total / drawn).astype(np.float32)
    most = HOST_BYTES if self._devices[0].platform == "cpu" else DEVICE_BYTES
    if rows * embeddings.shape[1] * 4 <= most:
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
    if not count:
      return np.zeros((0, len(self.mean)), np.float32)
    places = np.argsort(-distances, kind="stable")[:RESTART_ROWS]
    nearest, values = distances[places], self.rows(places)
    restarts: list[np.ndarray] = []
    while len(restarts) < count and nearest.max(initial=0) > 0:
      restarts.append(values[int(nearest.argmax())])
      squared = np.square(values - restarts[-1][None, :]).sum(1)
      nearest = np.minimum(nearest, squared)
    return np.array(restarts, np.float32).reshape(len(restarts), values.shape[1])

  def first_centres(self, clusters: int, rng: int) -> Float[np.ndarray, "K D"]:
    """Chooses centres by greedy k-means++ from the first rows of the drawn order."""
    count = min(len(self._order), max(SAMPLE_ROWS * clusters, LEAST_SAMPLE))
    sample = self.rows(np.arange(count))
    with jax.set_mesh(_alone(self._devices[0])):
      seed = np.uint32(rng & 0xFFFFFFFF)
      picked = first_centres.choose_first(clusters, sample, seed)
    return sample[np.asarray(picked)].copy()

  def make_sums(
    self, clusters: int
  ) -> tuple[Float[np.ndarray, "P K D"], Int[np.ndarray, "P K"]]:
    """Makes the sums and numbers of each cluster's rows in each part: zeros."""
    rows, width = len(self._order), len(self.mean)
    wanted = min(MOST_PARTS, rows // (PART_ROWS * clusters), len(self._starts))
    parts = 1 << (max(1, wanted).bit_length() - 1)
    return np.zeros((parts, clusters, width)), np.zeros((parts, clusters), np.int64)

  def assign(
    self,
    centres: Float[np.ndarray, "K D"],
    part: int,
    sums: Float[np.ndarray, "P K D"],
    sizes: Int[np.ndarray, "P K"],
    progress: overseer.Progress,
  ) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Assigns each row of a part to its nearest centre.

    Args:
      centres: the centres.
      part: the number of the part.
      sums: the sums of each cluster's rows in each part; those of this part are set.
      sizes: the numbers of these rows; those of this part are set.
      progress: called after each chunk.

    Returns:
      The label and the squared distance of each row as it was last assigned.
    """
    chunks, parts = len(self._starts), len(sums)
    here = range(part * chunks // parts, (part + 1) * chunks // parts)
    waiting: collections.deque = collections.deque()
    sums[part], sizes[part] = 0, 0

    def fetch(index, result):
      labels, distances, total = jax.device_get(result)
      rows = slice(self._starts[index], self._starts[index] + self.size)
      count = len(self._labels[rows])
      self._labels[rows], self._distances[rows] = labels[:count], distances[:count]
      sums[part] += total
      sizes[part] += np.bincount(labels[:count], minlength=len(centres))
      progress(rows.start + count, len(self._labels))

    copies = [jax.device_put(centres, device) for device in self._devices]
    host = self._devices[0].platform == "cpu"
    block = min(self.size, BLOCK_ROWS) if host else self.size
    for index in here:
      turn = index % len(self._devices)
      chunk = self._kept[index] if self._kept else self._put(index)
      with jax.set_mesh(_alone(self._devices[turn])):
        result = _assign(*chunk, copies[turn], block=block, scatter=host)
      waiting.append((index, result))
      # Two chunks in flight per device hide the transfers and bound the memory.
      if len(waiting) > 2 * len(self._devices):
        fetch(*waiting.popleft())
    while waiting:
      fetch(*waiting.popleft())
    return self._labels, self._distances


@functools.cache
def _alone(device: jax.Device) -> Mesh:
  return Mesh(np.array([device]), ("chunk",), axis_types=(AxisType.Auto,))


@functools.partial(jax.jit, static_argnames=("block", "scatter"))
def _assign(
  values: Float[Array, "n D"],
  valid: Bool[Array, " n"],
  centres: Float[Array, "K D"],
  block: int,
  scatter: bool,
) -> tuple[Int[Array, " n"], Float[Array, " n"], Float[Array, "K D"]]:
  """Returns each row's nearest centre and squared distance, and the clusters' sums.

  Of several nearest centres the first is taken.

  Args:
    values: rows.
    valid: which rows are counted in the sums.
    centres: the centres.
    block: the number of rows that are compared at a time, which divides n.
    scatter: whether rows are added one by one, which a CPU does in a fixed order and
      faster than a product with the one-hot matrix. A GPU's order is not fixed.
  """
  count, width = centres.shape
  half = 0.5 * jnp.sum(jnp.square(centres), 1, keepdims=True)
  number = jnp.arange(count, dtype=jnp.int32)[:, None]

  def step(sums, part):
    rows, counts = part
    near = jnp.dot(centres, rows.T, precision=FULL) - half
    # On a CPU argmax takes three times as long as the product; maxima do not.
    labels = jnp.where(near == near.max(0, keepdims=True), number, count).min(0)
    # Computed from differences, since the distance to a centre equal to the row must
    # be exactly 0.
    distances = jnp.sum(jnp.square(rows - centres[labels]), 1)
    rows = jnp.where(counts[:, None], rows, 0)
    if scatter:
      return sums.at[labels].add(rows), (labels, distances)
    member = jax.nn.one_hot(labels, count, dtype=rows.dtype, axis=0)
    return sums + jnp.dot(member, rows, precision=FULL), (labels, distances)

  blocks = values.reshape(-1, block, width), valid.reshape(-1, block)
  sums, (labels, distances) = jax.lax.scan(step, jnp.zeros_like(centres), blocks)
  return labels.reshape(-1), distances.reshape(-1), sums
