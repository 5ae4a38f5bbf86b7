"""Finds the most similar rows of each row: among all, or among clusters near to it."""

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.kmeans import kmeans
from mllm_selector_jax.selection.overseer import NOBODY, Overseer
from mllm_selector_jax.selection.pairwise import kernels
from mllm_selector_jax.selection.pairwise.row_tiles import Tiles, alone, fold, gather
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows

EXACT_ROWS = 1 << 15  # up to which all pairs of rows are compared: 12 s on a core
PROBES = 16  # the clusters whose rows are compared with those of a cluster
SAMPLE_ROWS = 32  # rows per cluster from which the centres are computed
MOST_ITERATIONS = 10  # of k-means: the lists need no better centres
QUERY_ROWS = 256  # the rows of a cluster that are compared at a time


class Neighbours(NamedTuple):
  """The most similar rows of each row, the most similar first.

  Attributes:
    place: their places in the order; -1 for none.
    cosine: their cosines; -inf for none.
  """

  place: Int[np.ndarray, "n k"]
  cosine: Float[np.ndarray, "n k"]


def find_neighbours(
  vectors: UnitRows,
  order: Int[np.ndarray, " n"],
  count: int,
  exact_rows: int = EXACT_ROWS,
  probes: int = PROBES,
  devices: Sequence[jax.Device] | None = None,
  overseer: Overseer = NOBODY,
) -> Neighbours:
  """Finds the `count` most similar other rows of each row.

  Up to `exact_rows` rows all pairs are compared. Above, the rows are divided into about
  sqrt(n) clusters, and the rows of a cluster are compared with those of the `probes`
  clusters whose centres are most similar to its own (inverted lists: Sivic and
  Zisserman 2003; Jegou, Douze and Schmid 2011). Then most of the neighbours found are
  among the true ones; docs/results/selection.md tells how many.

  Args:
    vectors: the rows of the pool.
    order: the rows to compare, in drawn order.
    count: k.
    exact_rows: the maximum of rows of which all pairs are compared.
    probes: the number of clusters that a cluster is compared with.
    devices: the local devices that share the work; by default all.
    overseer: watches the search, and above `exact_rows` rows keeps what it found.
  """
  start = kernels.no_neighbours(1, count)
  if len(order) <= exact_rows:
    tiles = Tiles(vectors, order, devices=devices)
    with overseer.watch("nearest rows", "pair") as progress:
      found = gather(start, tiles, _search(start, tiles, tiles, progress))
    return Neighbours(found.mark, found.cosine)
  result = Neighbours(
    np.full((len(order), count), -1, np.int32),
    np.full((len(order), count), -np.inf, np.float32),
  )
  used = list(devices or jax.local_devices())
  lists = _Lists(vectors, order, probes, used, overseer)
  made_from = (vectors, order, count, probes, lists.centres, lists.rows, lists.ends)
  keeper = overseer.keep("neighbours", *made_from)
  done = 0
  for kept in keeper.read():
    members = lists.rows[done : done + len(kept["place"])]
    result.place[members], result.cosine[members] = kept["place"], kept["cosine"]
    done += len(members)
  waiting: collections.deque = collections.deque()

  def fetch(members, tiles, states):
    nonlocal done
    found = gather(start, tiles, states)
    result.place[members], result.cosine[members] = found.mark, found.cosine
    keeper.add(place=found.mark, cosine=found.cosine)
    done += len(members)
    progress(done, len(order))

  with overseer.watch("nearest rows") as progress:
    progress(done, len(order))
    for number, (members, others) in enumerate(lists.after(done)):
      turn = number % len(used)
      turned = used[turn:] + used[:turn]
      left = Tiles(vectors, order[members], members, size=QUERY_ROWS, devices=turned)
      right = Tiles(vectors, order[others], others, devices=turned)
      waiting.append((members, left, _search(start, left, right)))
      if len(waiting) > len(used):
        fetch(*waiting.popleft())
    while waiting:
      fetch(*waiting.popleft())
  return result


def _search(start, left, right, progress=None):
  wide = jax.tree.map(lambda x: np.repeat(x, left.size, 0), start)
  return fold(kernels.nearest, wide, left, right, progress=progress)


class _Lists:
  """The rows by cluster.

  Attributes:
    centres: the centres of the clusters.
    rows: the places of the rows, those of a cluster one after the other.
    ends: the end of each cluster in `rows`.
  """

  def __init__(self, vectors, order, probes, devices, overseer):
    clusters = round(len(order) ** 0.5)
    sampled = order[: SAMPLE_ROWS * clusters]
    found = kmeans(
      vectors.rows(sampled),
      clusters,
      most_iterations=MOST_ITERATIONS,
      devices=devices,
      watch=lambda title: overseer.watch(f"centres of lists, {title}"),
      keeper=overseer.keep("centres", vectors, sampled, clusters),
    )
    self.centres = UnitRows(found.centres)
    label = assign(vectors, order, self.centres, devices, overseer)
    self.rows = np.argsort(label, kind="stable")
    self.ends = np.cumsum(np.bincount(label, minlength=len(self.centres)))
    whole = self.centres.rows(slice(None))
    with alone(devices[0]):
      self._similar = np.asarray(kernels.cosines(whole, whole))
    self._probes = probes

  def after(
    self, done: int
  ) -> Iterator[tuple[Int[np.ndarray, " m"], Int[np.ndarray, " c"]]]:
    """Yields the places of each cluster's rows and of the rows to compare them with.

    Args:
      done: the number of rows, the first ones of `rows`, whose clusters are left out.
    """
    lists = np.split(self.rows, self.ends[:-1])
    for cluster, members in enumerate(lists):
      if len(members) and self.ends[cluster] > done:
        near = np.argsort(-self._similar[cluster], kind="stable")[: self._probes]
        yield members, np.sort(np.concatenate([lists[c] for c in {cluster, *near}]))


def assign(
  vectors: UnitRows,
  order: Int[np.ndarray, " n"],
  centres: UnitRows,
  devices: Sequence[jax.Device] | None = None,
  overseer: Overseer = NOBODY,
) -> Int[np.ndarray, " n"]:
  """Returns the centre of the highest cosine for each row; of equal ones the first."""
  left = Tiles(vectors, order, devices=devices)
  right = Tiles(centres, np.arange(len(centres)), devices=devices)
  start = kernels.no_neighbours(left.size, 1)

  def function(best, rows, others):
    return kernels.nearest(best, rows, others, mask=kernels.all_rows)

  keeper = overseer.keep("lists", vectors, order, centres)
  with overseer.watch("lists", "pair") as progress:
    states = fold(function, start, left, right, progress=progress, keeper=keeper)
  return gather(start, left, states).mark[:, 0]
