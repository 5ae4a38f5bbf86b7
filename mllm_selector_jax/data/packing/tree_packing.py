"""The packing plan: which samples share a row of tokens, and what they share.

A plan is made from lengths and prefixes alone, before anything is read. Samples that
begin alike, with the same images, share that beginning (the trunk) in one row: its
tokens stand there once, and each sample's other tokens follow as a branch.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Num

from mllm_selector_jax.data.packing import batch_shapes
from mllm_selector_jax.data.packing.best_fit import best_fit
from mllm_selector_jax.data.packing.interleaving import interleave
from mllm_selector_jax.data.packing.prefixes import Prefixes, no_prefixes

Tree = tuple[int, list[int]]  # shared tokens, and the samples that share them

MOST_CLASSES = 4  # of rows, each of which means one more compilation


@dataclasses.dataclass(frozen=True)
class Plan:
  """Packed rows of trees: samples that share a trunk, or single samples.

  Attributes:
    row_length: L, tokens of a packed row.
    items: item numbers (places in the arrays given to `make_plan`), in the order
      in which they are laid out.
    trees: start of every tree in `items`, and the end.
    trunks: tokens that the samples of a tree share; 0 where there is one sample.
    trunk_tiles, trunk_taps: of the images in a tree's trunk.
    rows: start of every packed row in `trees`, and the end.
    classes: number of runs of rows, those of the most tiles first, which are to have
      batches of as many shapes.
  """

  row_length: int
  items: Int[np.ndarray, " n"]
  trees: Int[np.ndarray, " tree_bounds"]
  trunks: Int[np.ndarray, " trees"]
  trunk_tiles: Int[np.ndarray, " trees"]
  trunk_taps: Int[np.ndarray, " trees"]
  rows: Int[np.ndarray, " row_bounds"]
  classes: int = 1

  def __len__(self) -> int:
    """Packed rows."""
    return len(self.rows) - 1

  def row(self, number: int) -> list[Tree]:
    """The trees of a packed row: (trunk, item numbers) of each."""
    start, stop = self.rows[number], self.rows[number + 1]
    bounds = self.trees[start : stop + 1].tolist()
    items = self.items[bounds[0] : bounds[-1]].tolist()
    return [
      (trunk, items[low - bounds[0] : high - bounds[0]])
      for trunk, low, high in zip(
        self.trunks[start:stop].tolist(), bounds, bounds[1:], strict=False
      )
    ]

  def sums(self, values: Num[np.ndarray, " n"]) -> Num[np.ndarray, " r"]:
    """Sums a value of each item over every packed row."""
    return _sum_runs(np.asarray(values)[self.items], self.trees[self.rows])

  def tokens(self, lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " r"]:
    """Tokens that a packed row executes: every trunk once, and the branches."""
    return self._sums_once(lengths, self.trunks)

  def tiles(self, tiles: Int[np.ndarray, " n"]) -> Int[np.ndarray, " r"]:
    """Tiles that a packed row holds: those of every trunk once, and of the branches."""
    return self._sums_once(tiles, self.trunk_tiles)

  def taps(self, taps: Int[np.ndarray, " n"]) -> Int[np.ndarray, " r"]:
    """Interpolated features that a packed row holds, as `tiles`."""
    return self._sums_once(taps, self.trunk_taps)

  def _sums_once(self, values, of_trunk) -> Int[np.ndarray, " r"]:
    spared = (np.diff(self.trees) - 1) * of_trunk.astype(np.int64)
    return self.sums(np.asarray(values, np.int64)) - _sum_runs(spared, self.rows)


def make_plan(
  lengths: Int[np.ndarray, " n"],
  row_length: int,
  prefixes: Prefixes | None = None,
  tiles: Int[np.ndarray, " n"] | None = None,
  supervised: Int[np.ndarray, " n"] | None = None,
  step_rows: int | None = None,
) -> Plan:
  """Joins samples that begin alike to trees, and packs trees into rows.

  A sample joins those with which it has its longest prefix in common. Trees go,
  largest first, where they leave the least room. Rows then lie in an order in which
  consecutive ones hold about the average of tiles and of supervised tokens. If samples
  have several tiles and there are many steps, the rows are first divided into classes
  of more and of fewer tiles, whose batches have shapes of their own, and those of one
  step are ordered by `join_neighbours`. Ties are broken by item number, and nothing but
  equality of the keys counts.

  Args:
    lengths: tokens of each sample; none may exceed `row_length`.
    row_length: tokens of a packed row.
    prefixes: of the samples. None shares nothing.
    tiles: of each sample's images, only for the order of the rows.
    supervised: of each sample, likewise; by default the tokens beside the trunk stand
      in for them.
    step_rows: about how many packed rows a step has; None makes one class of rows.
  """
  lengths = np.asarray(lengths, np.int64)
  count = len(lengths)
  assert count < 2**31, count
  if count:
    assert 0 < lengths.min() and lengths.max() <= row_length, (
      lengths.min(),
      lengths.max(),
      row_length,
    )
  joined = _join(lengths, row_length, prefixes or no_prefixes(count))
  tiles = np.zeros(count, np.int64) if tiles is None else np.asarray(tiles, np.int64)

  # Trees are numbered by their first item.
  firsts = np.flatnonzero(joined.head == np.arange(count))
  tree_of = np.searchsorted(firsts, joined.head)
  members = np.bincount(tree_of, minlength=len(firsts))
  shared = joined.tokens[firsts]

  def measure(values, of_trunk):
    return _sum_by(tree_of, values, len(firsts)) - (members - 1) * of_trunk[firsts]

  sizes = measure(lengths, joined.tokens)
  order = np.argsort(-sizes, kind="stable")
  row_of = np.empty(len(firsts), np.int64)
  row_of[order] = bins = best_fit(sizes[order], row_length)
  row_count = int(bins.max(initial=-1)) + 1
  learned = lengths - joined.tokens[joined.head] if supervised is None else supervised
  classes = 1
  if step_rows is not None and tiles.max(initial=0) > 1:
    classes = batch_shapes.count_shapes(row_count // step_rows, MOST_CLASSES)
  row_tiles = _sum_by(row_of, measure(tiles, joined.tiles), row_count)
  rank = _order_by_class(
    row_tiles,
    _sum_by(row_of[tree_of], np.asarray(learned, np.int64), row_count),
    classes,
  )
  if step_rows is not None and tiles.max(initial=0) > 1:
    rank = join_neighbours(rank, row_tiles, step_rows)

  # Inside a row the largest tree is first, inside a tree the lowest item number.
  place = order[np.argsort(rank[row_of[order]], kind="stable")]
  position = np.empty(len(firsts), np.int64)
  position[place] = np.arange(len(firsts))
  return Plan(
    row_length=row_length,
    items=np.argsort(position[tree_of], kind="stable").astype(np.int32),
    trees=_bounds(members[place]),
    trunks=shared[place].astype(np.int32),
    trunk_tiles=joined.tiles[firsts][place].astype(np.int32),
    trunk_taps=joined.taps[firsts][place].astype(np.int32),
    rows=_bounds(np.bincount(rank[row_of], minlength=row_count)),
    classes=classes,
  )


class _Joined(NamedTuple):
  """The trees of the items.

  Attributes:
    head: the first item of each item's tree.
    tokens, tiles, taps: of the trunk, at the head of a tree; 0 elsewhere, and where a
      tree is a single item.
  """

  head: Int[np.ndarray, " n"]
  tokens: Int[np.ndarray, " n"]
  tiles: Int[np.ndarray, " n"]
  taps: Int[np.ndarray, " n"]


def _join(
  lengths: Int[np.ndarray, " n"], row_length: int, prefixes: Prefixes
) -> _Joined:
  """Joins items by their longest common prefix first, the others by shorter ones."""
  count = len(lengths)
  assert len(prefixes) == count, (len(prefixes), count)
  joined = _Joined(np.arange(count), *(np.zeros(count, np.int64) for _ in range(3)))
  depths = np.diff(prefixes.bounds)
  alone = np.ones(count, bool)
  for depth in range(int(depths.max(initial=0)) - 1, -1, -1):
    items = np.flatnonzero(alone & (depths > depth))
    place = prefixes.bounds[items] + depth
    is_some = prefixes.tokens[place] > 0
    items, place = items[is_some], place[is_some]
    if not len(items):
      continue
    order = np.lexsort((items, prefixes.keys[place]))
    items, place = items[order], place[order]
    keys = prefixes.keys[place]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    head = np.repeat(items[starts], np.diff(starts, append=len(items)))
    trunk = prefixes.tokens[place].astype(np.int64)
    branches = lengths[items] - trunk
    assert (branches >= 0).all(), "a prefix is longer than its row"
    total = trunk[starts] + np.add.reduceat(branches, starts)
    for group in np.flatnonzero(total > row_length).tolist():
      start = int(starts[group])
      stop = int(starts[group + 1]) if group + 1 < len(starts) else len(items)
      longest = np.argsort(-branches[start:stop], kind="stable")
      bins = np.empty(stop - start, np.int64)
      room = row_length - int(trunk[start])
      bins[longest] = best_fit(branches[start:stop][longest], room)
      _, first = np.unique(bins, return_index=True)  # the lowest item of each tree
      head[start:stop] = items[start:stop][first][bins]
    joined.head[items] = head
    several = np.bincount(head, minlength=count)[head] > 1
    alone[items[several]] = False
    heads = several & (head == items)
    joined.tokens[items[heads]] = trunk[heads]
    joined.tiles[items[heads]] = prefixes.tiles[place[heads]]
    joined.taps[items[heads]] = prefixes.taps[place[heads]]
  return joined


def _order_by_class(
  tiles: Int[np.ndarray, " r"], learned: Int[np.ndarray, " r"], classes: int
) -> Int[np.ndarray, " r"]:
  """The place of each row: classes of ever fewer tiles, each of them interleaved.

  The bounds of the classes waste the fewest tiles if a row is a batch's shard of its
  own. The first batch is one of the largest, so that a lack of memory shows at once.
  """
  heights = batch_shapes.choose_heights(tiles, classes)
  class_of = np.searchsorted(heights, tiles)
  place = np.empty(len(tiles), np.int64)
  start = 0
  for number in reversed(range(len(heights))):
    rows = np.flatnonzero(class_of == number)
    place[rows] = start + interleave(tiles[rows], learned[rows])
    start += len(rows)
  return place


def join_neighbours(
  place: Int[np.ndarray, " r"], tiles: Int[np.ndarray, " r"], step_rows: int
) -> Int[np.ndarray, " r"]:
  """Orders the rows of each step so that its parts hold about equally many tiles.

  The row of most tiles comes to stand beside that of the fewest, and so on; then pairs
  are paired, while their number is even. Whatever the number of shards, the rows of
  one of them are such a group, if both are powers of two. The last step, if it is not
  full, stays as it is.

  Args:
    place: of each row.
    tiles: of each row.
    step_rows: rows of a step.

  Returns:
    The place of each row, in the same step as before.
  """
  whole = len(place) // step_rows * step_rows
  rows = np.argsort(place)
  groups = rows[:whole].reshape(-1, step_rows, 1)
  while groups.shape[1] > 1 and groups.shape[1] % 2 == 0:
    half = groups.shape[1] // 2
    order = np.argsort(-tiles[groups].sum(-1), axis=1, kind="stable")[..., None]
    groups = np.take_along_axis(groups, order, 1)
    groups = np.concatenate([groups[:, :half], groups[:, : half - 1 : -1]], -1)
  joined = np.empty_like(place)
  joined[np.concatenate([groups.ravel(), rows[whole:]])] = np.arange(len(place))
  return joined


def _bounds(counts: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k+1"]:
  return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def _sum_by(
  group: Int[np.ndarray, " n"],
  values: Bool[np.ndarray, " n"] | Int[np.ndarray, " n"],
  groups: int,
) -> Int[np.ndarray, " g"]:
  # In float64, which is exact for whole numbers below 2^53.
  return np.bincount(group, values, minlength=groups).astype(np.int64)


def _sum_runs(
  values: Bool[np.ndarray, " n"] | Num[np.ndarray, " n"],
  bounds: Int[np.ndarray, " bounds"],
) -> Num[np.ndarray, " bounds-1"]:
  """Sums of consecutive runs, none of them empty; small integers do not overflow."""
  return np.add.reduceat(values, bounds[:-1])
