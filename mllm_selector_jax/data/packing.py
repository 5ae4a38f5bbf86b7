"""Packed rows of training: several samples share a row of tokens.

A plan is made from lengths alone, before anything is read. Samples in a row
never see one another: segments keep them apart (models/attention.py). Scoring,
where samples of one image share its tokens, has plans of its own (plan.py).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

Rows = list[list[int]]  # packed rows, each a list of the caller's item numbers


def pack(lengths: Sequence[int] | Int[np.ndarray, " n"], row_length: int) -> Rows:
  """Best-fit decreasing: each item goes where it leaves the least room.

  Args:
    lengths: tokens of each item; none may exceed `row_length`.
    row_length: tokens of a row.

  Returns:
    Rows of item numbers, in the order in which the rows were opened.
  """
  lengths = np.asarray(lengths)
  order = np.argsort(-lengths, kind="stable")
  rows: Rows = []
  by_room: list[list[int]] = [[] for _ in range(row_length + 1)]
  occupied = 0  # bit r: some row has r tokens of room
  for item in order.tolist():
    length = int(lengths[item])
    assert 0 < length <= row_length, (item, length, row_length)
    fitting = occupied >> length
    if fitting:
      room = length + ((fitting & -fitting).bit_length() - 1)
      row = by_room[room].pop()
      if not by_room[room]:
        occupied &= ~(1 << room)
      rows[row].append(item)
    else:
      room = row_length
      row = len(rows)
      rows.append([item])
    by_room[room - length].append(row)
    occupied |= 1 << (room - length)
  return rows


def training_steps(
  count: int,
  lengths: Int[np.ndarray, " n"],
  batch: int,
  epochs: int,
  seed: int,
  row_length: int,
) -> list[Rows]:
  """Shuffled epochs, cut into steps of `batch` samples, each packed.

  The samples of a step do not depend on the packing. The last step of an epoch
  may be smaller.

  Args:
    count: the number of samples, numbered from 0.
    lengths: tokens of each.
    batch: samples a step.
    epochs: passes over the samples.
    seed: of the order.
    row_length: tokens of a packed row.
  """
  steps = []
  for epoch in range(epochs):
    order = np.random.default_rng([seed, epoch]).permutation(count)
    for start in range(0, count, batch):
      items = order[start : start + batch]
      rows = pack(lengths[items], row_length)
      steps.append([[int(items[i]) for i in row] for row in rows])
  return steps


def row_length_for(lengths: Int[np.ndarray, " n"], wanted: int) -> int:
  """The row length in use: `wanted`, or more where a sample is longer."""
  longest = int(np.max(lengths, initial=1))
  return wanted if longest <= wanted else -(-longest // 128) * 128
