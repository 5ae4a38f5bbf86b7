"""The packing plan: which samples share a row of tokens, and what they share.

A plan is made from lengths and image keys alone, before anything is read. Samples
of one image share their beginning (the trunk: system text and image) in one row:
its tokens stand there once, and each sample's other tokens follow as a branch.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int, Num, UInt64

from mllm_selector_jax.data.packing.best_fit import best_fit

Tree = tuple[int, list[int]]  # shared tokens, and the samples that share them

_GOLDEN = np.uint64(11_400_714_819_323_198_485)  # 2^64 over the golden ratio, odd


@dataclasses.dataclass(frozen=True)
class Plan:
  """Packed rows of trees: samples that share a trunk, or single samples.

  Attributes:
    row_length: L, tokens of a packed row.
    items: item numbers (places in the arrays given to `make_plan`), in the order
      in which they are laid out.
    trees: start of every tree in `items`, and the end.
    trunks: tokens that the samples of a tree share; 0 where there is one sample.
    rows: start of every packed row in `trees`, and the end.
  """

  row_length: int
  items: Int[np.ndarray, " n"]
  trees: Int[np.ndarray, " tree_bounds"]
  trunks: Int[np.ndarray, " trees"]
  rows: Int[np.ndarray, " row_bounds"]

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
    """A value of each item, summed over every packed row."""
    return _sum_runs(np.asarray(values)[self.items], self.trees[self.rows])

  def tokens(self, lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " r"]:
    """Tokens that a packed row executes: every trunk once, and the branches."""
    spared = (np.diff(self.trees) - 1) * self.trunks.astype(np.int64)
    return self.sums(lengths) - _sum_runs(spared, self.rows)

  def images(self, has_image: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " r"]:
    """Times that the vision tower runs for a packed row: once a tree."""
    first = self.items[self.trees[:-1]]
    return _sum_runs(np.asarray(has_image, bool)[first], self.rows)


def make_plan(
  lengths: Int[np.ndarray, " n"],
  row_length: int,
  trunks: Int[np.ndarray, " n"] | None = None,
  images: UInt64[np.ndarray, " n"] | None = None,
  supervised: Int[np.ndarray, " n"] | None = None,
) -> Plan:
  """Joins samples of one image to trees, and packs trees into rows.

  Trees go, largest first, where they leave the least room. Rows then lie in an
  order in which consecutive ones hold about the average of images and of
  supervised tokens. Ties are broken by item number, and nothing but equality of
  the keys counts.

  Args:
    lengths: tokens of each sample; none may exceed `row_length`.
    row_length: tokens of a packed row.
    trunks: tokens of each sample through the end of its image; 0 where they
      cannot be shared (text alone, or the image stands in a later turn).
    images: a key of each sample's image as the model sees it, 0 for none. Samples
      with the same key and the same trunk may share it. None shares nothing.
    supervised: of each sample, only for the order of the rows; by default the
      tokens beside the trunk stand in for them.
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
  trunks = np.zeros(count, np.int64) if trunks is None else np.asarray(trunks, np.int64)
  assert ((0 <= trunks) & (trunks <= lengths)).all()
  if images is None:
    has_image, head = trunks > 0, np.arange(count)
  else:
    images = np.asarray(images, np.uint64)
    has_image = images != 0
    head = _join(lengths, row_length, np.where(has_image, trunks, 0), images)

  # Trees are numbered by their first item.
  firsts = np.flatnonzero(head == np.arange(count))
  tree_of = np.searchsorted(firsts, head)
  members = np.bincount(tree_of, minlength=len(firsts))
  shared = np.where(members > 1, trunks[firsts], 0)
  sizes = _sum_by(tree_of, lengths, len(firsts)) - (members - 1) * shared

  order = np.argsort(-sizes, kind="stable")
  row_of = np.empty(len(firsts), np.int64)
  row_of[order] = bins = best_fit(sizes[order], row_length)
  row_count = int(bins.max(initial=-1)) + 1
  learned = lengths - trunks if supervised is None else np.asarray(supervised, np.int64)
  rank = _interleave(
    _sum_by(row_of, has_image[firsts], row_count),
    _sum_by(row_of[tree_of], learned, row_count),
  )

  # Inside a row the largest tree is first, inside a tree the lowest item number.
  place = order[np.argsort(rank[row_of[order]], kind="stable")]
  position = np.empty(len(firsts), np.int64)
  position[place] = np.arange(len(firsts))
  return Plan(
    row_length=row_length,
    items=np.argsort(position[tree_of], kind="stable").astype(np.int32),
    trees=_bounds(members[place]),
    trunks=shared[place].astype(np.int32),
    rows=_bounds(np.bincount(rank[row_of], minlength=row_count)),
  )


def _join(
  lengths: Int[np.ndarray, " n"],
  row_length: int,
  trunks: Int[np.ndarray, " n"],
  images: UInt64[np.ndarray, " n"],
) -> Int[np.ndarray, " n"]:
  """The first item of each item's tree."""
  head = np.arange(len(lengths))
  items = np.flatnonzero(trunks)
  items = items[np.lexsort((items, trunks[items], images[items]))]
  new = np.ones(len(items), bool)
  new[1:] = (np.diff(images[items]) != 0) | (np.diff(trunks[items]) != 0)
  starts = np.flatnonzero(new)
  if not len(starts):
    return head
  head[items] = np.repeat(items[starts], np.diff(starts, append=len(items)))
  branches = lengths[items] - trunks[items]
  total = trunks[items[starts]] + np.add.reduceat(branches, starts)
  for group in np.flatnonzero(total > row_length).tolist():
    start = int(starts[group])
    stop = int(starts[group + 1]) if group + 1 < len(starts) else len(items)
    order = np.argsort(-branches[start:stop], kind="stable")
    room = row_length - int(trunks[items[start]])
    bins = np.empty(stop - start, np.int64)
    bins[order] = best_fit(branches[start:stop][order], room)
    _, first = np.unique(bins, return_index=True)  # the lowest item of each tree
    head[items[start:stop]] = items[start:stop][first][bins]
  return head


def _interleave(
  images: Int[np.ndarray, " r"], learned: Int[np.ndarray, " r"]
) -> Int[np.ndarray, " r"]:
  """The place of each row, so that neighbours differ and runs are alike.

  Rows sorted by images, then supervised tokens, are dealt out by the multiples of
  the golden ratio: any run of places takes nearly equally spaced ranks.
  """
  by_size = np.lexsort((learned, images))
  with np.errstate(over="ignore"):
    multiples = np.arange(1, len(by_size) + 1, dtype=np.uint64) * _GOLDEN
  place = np.empty(len(by_size), np.int64)
  place[by_size] = np.argsort(multiples)
  return place


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
