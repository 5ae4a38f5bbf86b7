"""The order of a pass over the pool: parts, and the steps that make each.

Everything follows from the packing plan and the options, nothing from devices or
processes, so that a pass goes on anywhere where it was broken off.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.packing import assembly, batch_shapes
from mllm_selector_jax.data.packing.tree_packing import Plan
from mllm_selector_jax.types import Tiling


@dataclasses.dataclass(frozen=True)
class Part:
  """Consecutive packed rows whose results are written at once.

  Attributes:
    number: from 0.
    start, stop: its packed rows in the plan.
    rows: the pool rows in them, ascending.
    steps: of the part.
  """

  number: int
  start: int
  stop: int
  rows: Int[np.ndarray, " n"]
  steps: int


def cut_parts(
  plan: Plan, rows: Int[np.ndarray, " n"], part_rows: int, batch_rows: int
) -> list[Part]:
  """Cuts a plan into parts of whole steps.

  Args:
    plan: of the items 0 to n - 1.
    rows: the pool row of each item.
    part_rows: about so many pool rows a part.
    batch_rows: packed rows a step.
  """
  packed = -(-part_rows * len(plan) // max(1, len(rows)))
  packed = -(-packed // batch_rows) * batch_rows
  parts = []
  for number, start in enumerate(range(0, len(plan), max(1, packed))):
    stop = min(start + packed, len(plan))
    first, last = plan.trees[plan.rows[[start, stop]]]
    own = np.sort(rows[plan.items[first:last]])
    parts.append(Part(number, start, stop, own, -(-(stop - start) // batch_rows)))
  return parts


@dataclasses.dataclass(frozen=True)
class Steps:
  """The packed rows of every step of some parts, as grain reads a source.

  Attributes:
    plan, rows: as `cut_parts` has them.
    parts: in the order in which they are made.
    batch_rows: packed rows a step.
    share, shares: which of equal shares of a step's rows is wanted (a process's).
  """

  plan: Plan
  rows: Int[np.ndarray, " n"]
  parts: list[Part]
  batch_rows: int
  share: int = 0
  shares: int = 1

  def __len__(self) -> int:
    return sum(part.steps for part in self.parts)

  def find(self, number: int) -> tuple[Part, int]:
    """The part of a step, and the step's first packed row."""
    for part in self.parts:
      if number < part.steps:
        return part, part.start + number * self.batch_rows
      number -= part.steps
    raise IndexError(number)

  def __getitem__(self, number: int) -> list[list[assembly.Tree]]:
    part, start = self.find(number)
    each = self.batch_rows // self.shares
    start += self.share * each
    return [
      [(trunk, self.rows[items].tolist()) for trunk, items in self.plan.row(row)]
      for row in range(start, min(start + each, part.stop))
    ]

  def sizes(self) -> Int[np.ndarray, " s"]:
    """Packed rows of each step, of all shares."""
    return np.concatenate(
      [np.zeros(0, np.int64)]
      + [
        np.diff([*range(part.start, part.stop, self.batch_rows), part.stop])
        for part in self.parts
      ]
    )


@dataclasses.dataclass(frozen=True)
class ShapedSteps:
  """Steps with the number of each one's shape, as `loader.MakeStep` takes them.

  Attributes:
    steps: the packed rows.
    which: the number of the shape of every step of the plan.
  """

  steps: Steps
  which: Int[np.ndarray, " s"]

  def __len__(self) -> int:
    return len(self.steps)

  def __getitem__(self, number: int) -> tuple[int, list[list[assembly.Tree]]]:
    _, start = self.steps.find(number)
    return int(self.which[start // self.steps.batch_rows]), self.steps[number]


class Shapes(NamedTuple):
  """The shapes of a plan's batches; see `find_shapes`.

  Attributes:
    which: the number of each step's shape.
    shapes: with ever more tiles.
    largest: a shape that holds every step.
  """

  which: Int[np.ndarray, " s"]
  shapes: tuple[assembly.Shape, ...]
  largest: assembly.Shape


def find_shapes(
  steps: Steps, counts: assembly.Counts, tiling: Tiling, shards: int
) -> Shapes:
  """As many shapes as the plan has classes, of which each step has the smallest.

  They hold every step of the plan, whichever parts are left.

  Args:
    steps: of all parts.
    counts: of each pool row.
    tiling: of the model.
    shards: row shards of a step.
  """
  plan, rows, sizes = steps.plan, steps.rows, steps.sizes()
  packed = assembly.Counts(
    tiles=plan.tiles(counts.tiles[rows]),
    taps=plan.taps(counts.taps[rows]),
    supervised=plan.sums(counts.supervised[rows].astype(np.int64)),
    answers=plan.sums(counts.answers[rows].astype(np.int64)),
  )
  needed = assembly.sum_fullest(sizes, packed.tiles, steps.batch_rows // shards)
  heights = batch_shapes.choose_heights(needed, plan.classes)
  which = np.searchsorted(heights, needed)

  def find(wanted):
    alike = np.repeat(wanted, sizes)
    return assembly.find_shape(
      sizes[wanted],
      assembly.Counts(*(values[alike] for values in packed)),
      plan.row_length,
      tiling,
      shards,
      steps.batch_rows,
      trunks=bool(plan.trunks.any()),
    )

  shapes = tuple(find(which == number) for number in range(len(heights)))
  whole = find(np.ones(len(sizes), bool))
  return Shapes(which, shapes or (whole,), whole)
