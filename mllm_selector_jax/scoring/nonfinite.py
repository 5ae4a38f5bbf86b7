"""Keeps a non-finite loss from spreading to the other samples of its packed row.

In attention, a weight of 0 times a value that is not finite gives NaN, so that one
overflowing sample spoils all losses of its packed row. The samples of such a row are
therefore scored again, each in a packed row of its own.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.packing import assembly
from mllm_selector_jax.scoring.sample_columns import Output


def find_not_finite(outputs: list[Output]) -> Int[np.ndarray, " k"]:
  """Return the pool rows with a token whose loss is not finite, ascending."""
  items = [
    owners.item[(owners.item >= 0) & ~np.isfinite(out["loss"])]
    for out, owners in outputs
  ]
  return np.unique(np.concatenate(items))


def drop_rows(outputs: list[Output], rows: Int[np.ndarray, " k"]) -> list[Output]:
  """Return the outputs without some pool rows: their positions become padding."""

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
  """Plan steps in which every sample has a packed row of its own.

  Args:
    rows: Pool row numbers.
    counts: Images, supervised tokens and answers of every pool row.
    shape: Shape of a step. The plan that the rows were packed by before fits it.

  Returns:
    The steps, each a list of packed rows.
  """
  shard_rows = shape.rows // shape.shards
  room = np.array(
    [shape.tiles, shape.taps, shape.supervised, shape.answers, shard_rows]
  )
  shards: list[list[list[assembly.Tree]]] = []
  room_left = np.zeros(len(room))
  for row in rows:
    need = np.array([*(count[row] for count in counts), 1])
    if (need > room_left).any():
      shards.append([])
      room_left = room
    shards[-1].append([(0, [int(row)])])
    room_left = room_left - need
  shards += [[] for _ in range(-len(shards) % shape.shards)]
  filled = [shard + [[]] * (shard_rows - len(shard)) for shard in shards]
  return [
    [row for shard in filled[start : start + shape.shards] for row in shard]
    for start in range(0, len(filled), shape.shards)
  ]
