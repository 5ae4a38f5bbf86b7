"""Chooses few batch shapes, since each is compiled, with little padding.

Steps of training that have as many samples need more or fewer packed rows. One shape
for all would have rows of padding in nearly every step. Scoring has as many packed
rows in every step, but with more or fewer tiles (tree_packing.py, scoring/schedule.py).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.packing import assembly, row_packing
from mllm_selector_jax.data.packing.interleaving import interleave
from mllm_selector_jax.types import Tiling

MOST = 3  # shapes, each a compilation
STEPS_EACH = 100  # steps that pay for one more of them


def count_shapes(steps: int, most: int = MOST) -> int:
  """Returns how many shapes a number of steps pays for, up to a maximum."""
  return min(most, 1 + steps // STEPS_EACH)


class Laid(NamedTuple):
  """The packed rows of every step, and the shapes of their batches.

  Attributes:
    steps: rows of items.
    which: the number of each step's shape.
    shapes: with ever more rows; the last one holds every step.
  """

  steps: list[row_packing.Rows]
  which: Int[np.ndarray, " s"]
  shapes: tuple[assembly.Shape, ...]

  @property
  def largest(self) -> assembly.Shape:
    return self.shapes[-1]


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


def lay_out(
  steps: Sequence[row_packing.Rows],
  items: assembly.Counts,
  length: int,
  tiling: Tiling,
  shards: int = 1,
  most: int | None = None,
) -> Laid:
  """Assigns the smallest of few shapes to every step.

  The rows of a step are put in an order in which equal shares of them hold about as
  many tiles and supervised tokens, however many shares there are.

  Args:
    steps: of packed rows of items.
    items: what each item holds.
    length: tokens of a row.
    tiling: of the model.
    shards: over how many shards a step's rows are spread.
    most: shapes; None: one, and one more every `STEPS_EACH` steps up to `MOST`.
  """
  if most is None:
    most = count_shapes(len(steps))
  steps = [_spread(step, items) for step in steps]
  needed = np.array([-(-max(len(step), 1) // shards) * shards for step in steps])
  heights = choose_heights(needed, most)
  which = np.searchsorted(heights, needed)
  shapes = []
  for number in range(len(heights)):
    alike = [steps[place] for place in np.flatnonzero(which == number).tolist()]
    shapes.append(assembly.find_steps_shape(alike, items, length, tiling, shards))
  return Laid(steps, which, tuple(shapes))


def _spread(step: row_packing.Rows, items: assembly.Counts) -> row_packing.Rows:
  """The rows of a step, interleaved by what they hold."""
  counts = assembly.count_rows(step, items)
  order = np.argsort(interleave(counts.tiles, counts.supervised))
  return [step[number] for number in order.tolist()]
