"""Chooses few batch shapes, since each is compiled, with little padding.

Steps of training that have as many samples need more or fewer packed rows, and their
rows hold more or fewer tiles. One shape for all would have rows and tiles of padding in
nearly every step. Scoring has as many packed rows in every step, but with more or fewer
tiles (tree_packing.py, scoring/schedule.py).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.data.packing import assembly, row_packing
from mllm_selector_jax.data.packing.shard_spreading import (
  Samples,
  exchange_samples,
  spread,
)
from mllm_selector_jax.types import Tiling

MOST = 3  # shapes, each a compilation
STEPS_EACH = 100  # steps that pay for one more of them
# So does the padding of fewer steps, if it is the work of so many of the largest batch:
# compiling a step takes a few times as long as running it.
SAVED_STEPS = 10
LEVELS = 24  # numbers of rows and of tiles among which those of shapes are chosen
# What a feature of a tile costs, in tokens: a vision tower of 0.3 to 0.4 billion
# parameters costs .04 to .15 of a decoder of 7 or 8 billion. In native resolution four
# patches make a feature, and all patches of an image see each other: .1 to .4 of
# decoders of 2 to 8 billion, of which the backward pass is counted, too.
FEATURE_COST, NATIVE_FEATURE_COST = 1 / 8, 1 / 4


def count_shapes(steps: int, most: int = MOST) -> int:
  """Returns how many shapes a number of steps pays for, up to a maximum."""
  return min(most, 1 + steps // STEPS_EACH)


class Laid(NamedTuple):
  """The packed rows of every step, and the shapes of their batches.

  Attributes:
    steps: rows of items, as many as the step's shape has; empty ones are padding.
    which: the number of each step's shape.
    shapes: with ever more rows or tiles; each is the shape of some step.
    largest: a shape that holds every step; the last of the shapes, unless no step
      needs as many rows and as many tiles.
  """

  steps: list[row_packing.Rows]
  which: Int[np.ndarray, " s"]
  shapes: tuple[assembly.Shape, ...]
  largest: assembly.Shape


def choose_heights(rows: Int[np.ndarray, " s"], most: int) -> list[int]:
  """Chooses the numbers of rows that waste the least, by dynamic programming.

  A step is given the smallest number that is not below its own.

  Args:
    rows: what each step needs.
    most: how many numbers.

  Returns:
    Numbers, ascending; the last is the most that a step needs.
  """
  sizes, counts = np.unique(rows, return_counts=True)
  below = np.concatenate([[0], np.cumsum(counts)])
  # least[i]: what the steps of the i smallest sizes take, the last number given to i's.
  least = np.full(len(sizes) + 1, np.inf)
  least[0] = 0
  choices = []
  for _ in range(min(most, len(sizes))):
    taken = np.full_like(least, np.inf)
    choice = np.zeros(len(least), int)
    for end in range(1, len(least)):
      cost = least[:end] + (below[end] - below[:end]) * sizes[end - 1]
      choice[end] = np.argmin(cost)
      taken[end] = cost[choice[end]]
    least = taken
    choices.append(choice)
  end, found = len(sizes), []
  for choice in reversed(choices):
    found.append(int(sizes[end - 1]))
    end = choice[end]
  return found[::-1]


def choose_sizes(
  needed: Int[np.ndarray, "s 2"], costs: tuple[float, float], most: int
) -> Int[np.ndarray, "k 2"]:
  """Chooses the pairs of sizes that cost the least, the largest of both among them.

  A step is given the cheapest pair that holds it in both sizes. The choice is the best
  of all whose sizes are among `LEVELS` quantiles of the needed ones.

  Args:
    needed: two sizes that each step needs.
    costs: of one more of either size; above 0.
    most: how many pairs.

  Returns:
    Pairs that at least one step is given, from the cheapest to the most expensive.
  """
  levels = [_list_levels(column) for column in needed.T]
  level_of = [
    np.searchsorted(sizes, column)
    for sizes, column in zip(levels, needed.T, strict=True)
  ]
  cells, counts = np.unique(np.stack(level_of, 1), axis=0, return_counts=True)
  cells = np.stack([sizes[at] for sizes, at in zip(levels, cells.T, strict=True)], 1)
  pairs = np.stack(np.meshgrid(*levels, indexing="ij"), -1).reshape(-1, 2)
  pairs = pairs[np.argsort(pairs @ np.array(costs), kind="stable")]
  holds = (cells <= pairs[:, None]).all(-1)
  paid = np.where(holds, (pairs @ np.array(costs))[:, None], np.inf)
  _, chosen = _choose_more(paid[-1], paid[:-1], counts, min(most, len(pairs)) - 1)
  pairs = pairs[[*sorted(chosen), len(pairs) - 1]]
  return pairs[np.unique(assign(needed, pairs))]


def assign(
  needed: Int[np.ndarray, "s 2"], pairs: Int[np.ndarray, "k 2"]
) -> Int[np.ndarray, " s"]:
  """Returns the number of the first pair that holds each step in both sizes."""
  return (needed[:, None] <= pairs).all(-1).argmax(1)


def _choose_paying(
  needed: Int[np.ndarray, "s 2"], costs: tuple[float, float]
) -> Int[np.ndarray, "k 2"]:
  """`choose_sizes` with as many pairs as pay for their compilation."""
  count = count_shapes(len(needed))
  if count > 1 or len(needed) < SAVED_STEPS:
    return choose_sizes(needed, costs, count)
  one, two = (choose_sizes(needed, costs, most) for most in (1, 2))
  work = two @ np.array(costs)
  saved = (work[-1] - work[assign(needed, two)]).sum() / work[-1]
  return two if saved >= SAVED_STEPS else one


def _list_levels(sizes: Int[np.ndarray, " s"]) -> Int[np.ndarray, " l"]:
  """Returns all sizes, or the quantiles of many, the largest among them."""
  levels = np.unique(sizes)
  if len(levels) <= LEVELS:
    return levels
  shares = np.linspace(0, 1, LEVELS + 1)[1:]
  return np.unique(np.quantile(sizes, shares, method="higher"))


def _choose_more(
  least: Float[np.ndarray, " c"],
  paid: Float[np.ndarray, "p c"],
  counts: Int[np.ndarray, " c"],
  more: int,
) -> tuple[float, tuple[int, ...]]:
  """Chooses further pairs by trying all combinations.

  Args:
    least: what steps of each kind cost by the pairs that are chosen already.
    paid: what they cost by each other pair; infinite where it does not hold them.
    counts: steps of each kind.
    more: how many pairs may be chosen.

  Returns:
    The cost of all steps, and the chosen pairs.
  """
  if more == 0 or not len(paid):
    return float(least @ counts), ()
  if more == 1:
    totals = np.minimum(least, paid) @ counts
    return float(totals.min()), (int(totals.argmin()),)
  found: tuple[float, tuple[int, ...]] = float(least @ counts), ()
  for number in range(len(paid)):
    cost, others = _choose_more(
      np.minimum(least, paid[number]), paid[number:], counts, more - 1
    )
    if cost < found[0]:
      found = cost, (number, *(number + other for other in others))
  return found


def lay_out(
  steps: Sequence[row_packing.Rows],
  items: assembly.Counts,
  tokens: Int[np.ndarray, " n"],
  length: int,
  tiling: Tiling,
  shards: int = 1,
  most: int | None = None,
) -> Laid:
  """Spreads the samples of every step over shards, and assigns one of few shapes to it.

  Shapes are chosen by their rows and tiles: a row costs its tokens, and a tile
  `FEATURE_COST`, or the native one, for each of its features.

  Args:
    steps: of packed rows of items.
    items: what each item holds.
    tokens: of each item.
    length: tokens of a row.
    tiling: of the model.
    shards: over how many shards a step's rows are spread.
    most: shapes; None: one, and one more every `STEPS_EACH` steps up to `MOST`; fewer
      steps have a second shape if it saves the work of `SAVED_STEPS`.
  """
  laid = [_lay_step(step, items, tokens, length, shards) for step in steps]
  # A batch has at least one row and one place for a tile in a shard.
  heights = np.array([max(1, len(rows) // shards) for rows in laid], np.int64)
  fullest = np.array(
    [
      [values.reshape(shards, -1).sum(1).max(initial=0) for values in count]
      for count in (assembly.count_rows(rows, items) for rows in laid)
    ],
    np.int64,
  ).reshape(-1, len(assembly.Counts._fields))
  needed = np.stack([heights, np.maximum(1, fullest[:, 0])], 1)

  def make_shape(height, most_held):
    rows = int(height) * shards
    return assembly.make_shape(rows, most_held.tolist(), length, tiling, shards)

  feature = NATIVE_FEATURE_COST if tiling.native else FEATURE_COST
  costs = (length, feature * tiling.patches)
  pairs = choose_sizes(needed, costs, most) if most else _choose_paying(needed, costs)
  which = assign(needed, pairs)
  alike = [np.flatnonzero(which == number) for number in range(len(pairs))]
  shapes = [make_shape(heights[at].max(), fullest[at].max(0)) for at in alike]
  laid = [
    _fill(rows, shards, shapes[number].rows // shards)
    for rows, number in zip(laid, which.tolist(), strict=True)
  ]
  largest = make_shape(heights.max(), fullest.max(0))
  return Laid(laid, which, tuple(shapes), largest)


def _lay_step(
  step: row_packing.Rows,
  items: assembly.Counts,
  tokens: Int[np.ndarray, " n"],
  length: int,
  shards: int,
) -> row_packing.Rows:
  """Lists the rows of each shard in turn, as many in all of them."""
  count = assembly.count_rows(step, items)
  places = spread(count.tiles, count.supervised, shards)
  height = places.shape[1]
  rows = [[] if row < 0 else step[row] for row in places.ravel().tolist()]
  if shards == 1:
    return rows
  flat = np.fromiter((item for row in rows for item in row), np.int64)
  row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
  samples = Samples(
    *(
      np.asarray(values)[flat].astype(np.int64)
      for values in (tokens, items.tiles, items.supervised)
    )
  )
  moved = exchange_samples(row_of, samples, length, shards, height)
  rows = [[] for _ in rows]
  for item, row in zip(flat.tolist(), moved.tolist(), strict=True):
    rows[row].append(item)
  return rows


def _fill(rows: row_packing.Rows, shards: int, height: int) -> row_packing.Rows:
  """Fills each shard's rows up to `height` with empty ones."""
  each = len(rows) // shards
  empty: row_packing.Rows = [[] for _ in range(height - each)]
  return [
    row
    for start in range(0, len(rows), each)
    for row in rows[start : start + each] + empty
  ]
