"""Losses that are not finite, kept from the samples beside them.

In attention a weight of 0 times a value that is not finite is not a number: one
overflowing sample takes the whole of its packed row with it. So the samples of
such a row are scored once more, each in a row of its own.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.packing import assembly
from mllm_selector_jax.scoring.sample_columns import Output


def find_not_finite(outputs: list[Output]) -> Int[np.ndarray, " k"]:
  """The pool rows of which some token's loss is not finite, ascending."""
  found = [
    owners.item[(owners.item >= 0) & ~np.isfinite(out["loss"])]
    for out, owners in outputs
  ]
  return np.unique(np.concatenate(found))


def drop_rows(outputs: list[Output], rows: Int[np.ndarray, " k"]) -> list[Output]:
  """The outputs with the positions of these pool rows owned by none."""

  def disown(item):
    return np.where(np.isin(item, rows), -1, item)

  return [
    (
      out,
      owners._replace(item=disown(owners.item), answer_item=disown(owners.answer_item)),
    )
    for out, owners in outputs
  ]


def set_apart(
  rows: Iterable[int], counts: assembly.Counts, shape: assembly.Shape
) -> list[list[list[assembly.Tree]]]:
  """Steps in which every sample has a packed row of its own.

  Args:
    rows: pool rows.
    counts: of every pool row.
    shape: of a step, which some plan of the same pool rows fits.
  """
  shard_rows = shape.rows // shape.shards
  room = np.array(
    [shape.tiles, shape.taps, shape.supervised, shape.answers, shard_rows]
  )
  shards: list[list[list[assembly.Tree]]] = []
  left = np.zeros(len(room))
  for row in rows:
    need = np.array([*(count[row] for count in counts), 1])
    if (need > left).any():
      shards.append([])
      left = room
    shards[-1].append([(0, [int(row)])])
    left = left - need
  shards += [[] for _ in range(-len(shards) % shape.shards)]
  filled = [shard + [[]] * (shard_rows - len(shard)) for shard in shards]
  return [
    [row for shard in filled[start : start + shape.shards] for row in shard]
    for start in range(0, len(filled), shape.shards)
  ]
