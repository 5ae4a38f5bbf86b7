"""The order of a pass over the pool: parts, and the steps that make each.

Everything follows from the packing plan and the options, nothing from devices or
processes, so that a pass goes on anywhere where it was broken off.
"""

import dataclasses

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.packing import assembly
from mllm_selector_jax.data.packing.tree_packing import Plan


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

  def __getitem__(self, number: int) -> list[list[assembly.Tree]]:
    for part in self.parts:
      if number < part.steps:
        break
      number -= part.steps
    else:
      raise IndexError(number)
    each = self.batch_rows // self.shares
    start = part.start + number * self.batch_rows + self.share * each
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


def find_shape(
  steps: Steps, counts: assembly.Counts, patches: int, side: int, shards: int
) -> assembly.Shape:
  """The shape that holds every step of the plan, whichever parts are left.

  Args:
    steps: of all parts.
    counts: of each pool row.
    patches, side: features and pixels of a tile.
    shards: row shards of a step.
  """
  plan, rows = steps.plan, steps.rows
  return assembly.find_shape(
    steps.sizes(),
    assembly.Counts(
      tiles=plan.tiles(counts.tiles[rows]),
      taps=plan.taps(counts.taps[rows]),
      supervised=plan.sums(counts.supervised[rows].astype(np.int64)),
      answers=plan.sums(counts.answers[rows].astype(np.int64)),
    ),
    plan.row_length,
    patches,
    side,
    shards,
    steps.batch_rows,
    trunks=bool(plan.trunks.any()),
  )
