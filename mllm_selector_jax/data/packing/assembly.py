"""Assembles a batch of packed rows from samples and a packing plan.

A packed row is a list of trees. A tree is several samples behind their common
beginning, the trunk, which is laid once, or a single sample without one.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from mllm_selector_jax.data.packing.image_places import place_features, place_tiles
from mllm_selector_jax.data.packing.rotary_axes import lay_axes
from mllm_selector_jax.types import Batch, ImageLayout, Sample, Tiling

Tree = tuple[int, Sequence[int]]  # tokens of the trunk, and the items
# A sample, and the tiles of each of its images.
Example = tuple[Sample, tuple[UInt8[np.ndarray, "_ S S 3"], ...]]


@dataclasses.dataclass(frozen=True)
class Shape:
  """The static sizes of a batch; see the axis letters in types.py.

  Attributes:
    rows: B, length: L, shards: W.
    tiles: M, supervised: T, answers: A, each of a shard.
    tiling: features and pixels of a tile, and what its arrays are.
    trunks: whether trees may have a trunk.
    taps: K, interpolated features of a shard; 0 where the images' form has none.
  """

  rows: int
  length: int
  shards: int
  tiles: int
  supervised: int
  answers: int
  tiling: Tiling
  trunks: bool = False
  taps: int = 0

  def share(self, shares: int) -> "Shape":
    """Returns the shape of one of several equal shares of the rows."""
    rows, shards = self.rows // shares, self.shards // shares
    return dataclasses.replace(self, rows=rows, shards=shards)


class Owners(NamedTuple):
  """Maps the supervised positions of a batch to items, on the host.

  Attributes:
    item: the item number of a supervised position; -1 for padding.
    turn: its round in the conversation; -1 for padding.
    answer_item: the item number of an answer; -1 for padding.
  """

  item: Int[np.ndarray, "W T"]
  turn: Int[np.ndarray, "W T"]
  answer_item: Int[np.ndarray, "W A"]


class Counts(NamedTuple):
  """Counts of what each packed row holds."""

  tiles: Int[np.ndarray, " R"]
  taps: Int[np.ndarray, " R"]
  supervised: Int[np.ndarray, " R"]
  answers: Int[np.ndarray, " R"]

  @classmethod
  def of_pool(cls, pool: Any, images: bool = True) -> "Counts":
    """Counts what each row of a checked pool holds, with or without its images."""
    return cls(pool.tiles * images, pool.taps * images, pool.supervised, pool.turns)


def count_rows(rows: Sequence[Sequence[int]], items: Counts) -> Counts:
  """Sums over the items of each row."""
  sizes = [len(row) for row in rows]
  row_of = np.repeat(np.arange(len(rows)), sizes)
  flat = np.fromiter((item for row in rows for item in row), np.int64, sum(sizes))

  def add(values):
    sums = np.bincount(row_of, np.asarray(values)[flat], len(rows))
    return sums.astype(np.int64)

  return Counts(*map(add, items))


def find_shape(
  steps: Sequence[int] | Int[np.ndarray, " s"],
  counts: Counts,
  length: int,
  tiling: Tiling,
  shards: int = 1,
  rows: int = 1,
  trunks: bool = False,
) -> Shape:
  """Finds the smallest shape that holds every step, so that one is compiled for all.

  Args:
    steps: packed rows of each step, as numbers of rows that follow each other.
    counts: of all those packed rows.
    length: tokens of a row.
    tiling: of the model.
    shards: over how many shards a step's rows are spread, in order.
    rows: the fewest rows of a step; rounded up to the shards.
    trunks: whether trees may have a trunk.
  """
  steps = np.asarray(steps, np.int64)
  rows = -(-max(rows, int(steps.max(initial=1))) // shards) * shards

  def most(values):
    return int(sum_fullest(steps, values, rows // shards).max(initial=0))

  fullest = [most(values) for values in counts]
  return make_shape(rows, fullest, length, tiling, shards, trunks)


def make_shape(
  rows: int,
  fullest: Sequence[int],
  length: int,
  tiling: Tiling,
  shards: int = 1,
  trunks: bool = False,
) -> Shape:
  """Makes the shape whose shards hold as much as the fullest ones.

  Args:
    rows: of a batch.
    fullest: for each of `Counts`, the most that a shard holds.
    length: tokens of a row.
    tiling: of the model.
    shards: over how many shards a step's rows are spread.
    trunks: whether trees may have a trunk.
  """
  tiles, taps, supervised, answers = (int(most) for most in fullest)
  return Shape(
    rows=int(rows),
    length=length,
    shards=shards,
    tiles=max(1, tiles),
    supervised=max(8, -(-supervised // 8) * 8),
    answers=max(1, answers),
    tiling=tiling,
    trunks=trunks,
    taps=taps,
  )


def sum_fullest(
  steps: Int[np.ndarray, " s"], values: Int[np.ndarray, " R"], shard_rows: int
) -> Int[np.ndarray, " s"]:
  """A value of each packed row, summed over the shards: of each step the largest sum.

  Args:
    steps: packed rows of each step, as numbers of rows that follow each other.
    values: of all those packed rows.
    shard_rows: packed rows of a shard; the last shards of a step may have fewer.
  """
  step = np.repeat(np.arange(len(steps)), steps)
  place = np.arange(len(step)) - np.repeat(np.cumsum(steps) - steps, steps)
  shards = 1 + int(place.max(initial=0)) // shard_rows
  sums = np.bincount(
    step * shards + place // shard_rows, values, len(steps) * shards
  ).reshape(len(steps), shards)
  return sums.max(1, initial=0).astype(np.int64)


def find_steps_shape(
  steps: Sequence[Sequence[Sequence[int]]],
  items: Counts,
  length: int,
  tiling: Tiling,
  shards: int = 1,
) -> Shape:
  """`find_shape` of steps given as packed rows of items."""
  rows = [row for step in steps for row in step]
  counts = count_rows(rows, items)
  return find_shape([len(step) for step in steps], counts, length, tiling, shards)


def assemble(
  rows: Iterable[Iterable[Tree]],
  examples: dict[int, Example],
  shape: Shape,
  image_token: int,
) -> tuple[Batch, Owners]:
  """Lays samples into packed rows; rows beyond the given ones are padding.

  Args:
    rows: for each row its trees, as (tokens of the trunk, item numbers).
    examples: tokens and tiles of the items.
    shape: of the batch.
    image_token: the id that stands for a feature of an image.
  """
  writer = _Writer(shape, image_token)
  for number, trees in enumerate(rows):
    writer.begin_row(number)
    for trunk, items in trees:
      writer.add_tree(trunk, items, examples)
  return writer.batch, writer.owners


def describe_batch(shape: Shape) -> Batch:
  """Returns the shape and type of every array of a batch."""
  size = (shape.rows, shape.length)
  few = (shape.shards, shape.supervised)
  tiles, side = (shape.shards, shape.tiles), shape.tiling.side
  taps = (shape.shards, shape.taps, 4)
  return Batch(
    tokens=(size, np.int32),
    positions=(size, np.int32),
    segments=(size, np.int32),
    patches=(size, np.int32),
    images=((*tiles, side, side, 3), np.uint8),
    predict=(few, np.int32),
    targets=(few, np.int32),
    weights=(few, np.float32),
    answers=((shape.shards, shape.answers), np.int32),
    prefixes=(size, np.int32) if shape.trunks else None,
    taps=(taps, np.int32) if shape.taps else None,
    tap_weights=(taps, np.float32) if shape.taps else None,
    places=((*tiles, 5), np.int32) if shape.tiling.native else None,
    axes=((*size, 3), np.int32) if shape.tiling.axes else None,
  )


_NONE = ("patches", "prefixes")


class _Writer:
  """Fills a batch row by row, and keeps track of the next free places."""

  def __init__(self, shape: Shape, image_token: int):
    self.shape, self.image_token = shape, image_token
    described = describe_batch(shape)

    def fill(name, size, kind):
      # Where 0 would be something, -1 is nothing.
      return np.full(size, -1, kind) if name in _NONE else np.zeros(size, kind)

    self.batch = Batch(**{k: v and fill(k, *v) for k, v in described._asdict().items()})
    few, answers = described.predict[0], described.answers[0]
    self.owners = Owners(
      np.full(few, -1, np.int64), np.full(few, -1, np.int64), np.full(answers, -1)
    )
    self.shard = -1

  def begin_row(self, number: int) -> None:
    self.row = number
    self.start = self.segment = 0
    shard, place = divmod(number, self.shape.rows // self.shape.shards)
    self.origin = place * self.shape.length  # of the row, among the shard's positions
    if shard != self.shard:
      self.shard = shard
      self.images = self.tiles = self.taps = self.learned = self.answered = 0

  def add_tree(self, trunk: int, items: Sequence[int], examples) -> None:
    begin, parent = self.start, -1
    if trunk:
      parent = self._add_tokens(examples[items[0]], 0, trunk)
    for item in items:
      sample, _ = examples[item]
      assert np.array_equal(
        sample.tokens[:trunk], examples[items[0]][0].tokens[:trunk]
      ), f"items {items[0]} and {item} do not begin alike"
      branch = self.start
      self._add_tokens(examples[item], trunk, len(sample.tokens), parent)
      self._add_targets(item, sample, trunk, begin, branch)

  def _add_tokens(self, example: Example, first: int, last: int, parent=-1) -> int:
    """Adds the tokens from first to last as a segment, and returns its number."""
    sample, tiles = example
    self.segment += 1
    here = self.row, slice(self.start, self.start + last - first)
    self.batch.tokens[here] = sample.tokens[first:last]
    self.batch.positions[here] = np.arange(first, last)
    self.batch.segments[here] = self.segment
    if self.batch.axes is not None:
      self.batch.axes[here] = lay_axes(sample, self.image_token)[first:last]
    if parent > 0:
      assert self.batch.prefixes is not None, "a shape with trunks has prefixes"
      self.batch.prefixes[here] = parent
    for image, cut in zip(sample.images, tiles, strict=True):
      if first <= image.start < last:
        assert image.stop <= last, "an image stands in one segment"
        self._add_image(image.layout, cut, self.start + image.start - first)
    self.start += last - first
    return self.segment

  def _add_image(
    self, layout: ImageLayout, cut: UInt8[np.ndarray, "t S S 3"], start: int
  ) -> None:
    """Puts an image's tiles among the shard's, and its features into the row."""
    shape, batch = self.shape, self.batch
    patches = shape.tiling.patches
    place = place_features(layout, self.tiles, self.taps, shape.tiles, patches)
    (at,) = np.nonzero(layout.tokens == self.image_token)
    batch.patches[self.row, start + at] = place
    added = self.shard, slice(self.tiles, self.tiles + layout.tiles)
    batch.images[added] = cut
    self.images += 1
    if batch.places is not None:
      batch.places[added] = place_tiles(layout, self.images)
    if count := len(layout.taps):
      assert batch.taps is not None and batch.tap_weights is not None, "of the shape"
      span = self.shard, slice(self.taps, self.taps + count)
      batch.taps[span] = layout.taps + self.tiles * patches
      batch.tap_weights[span] = layout.weights
      self.taps += count
    self.tiles += layout.tiles

  def _add_targets(self, item, sample, trunk, begin, branch) -> None:
    """Adds the targets of a sample, and the positions that predict them."""
    (where,) = np.nonzero(sample.supervised)
    before = where - 1
    place = np.where(before < trunk, begin + before, branch + before - trunk)
    place += self.origin
    first = np.flatnonzero(np.diff(sample.turns[where], prepend=-1))
    span = self.shard, slice(self.learned, self.learned + len(where))
    self.batch.predict[span] = place
    self.batch.targets[span] = sample.tokens[where]
    self.batch.weights[span] = 1
    self.owners.item[span] = item
    self.owners.turn[span] = sample.turns[where]
    span = self.shard, slice(self.answered, self.answered + len(first))
    self.batch.answers[span] = place[first]
    self.owners.answer_item[span] = item
    self.learned += len(where)
    self.answered += len(first)
