"""Packing plans and packed batches: several samples share a row of tokens.

A plan is made from lengths alone, before anything is read. Samples in a row
never see one another: segments keep them apart (models/attention.py).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from mllm_selector_jax.types import Batch, Sample

Rows = list[list[int]]  # packed rows, each a list of the caller's item numbers


@dataclasses.dataclass(frozen=True)
class Shape:
  """The static sizes of a batch; see the axis letters in types.py.

  Attributes:
    rows: B, length: L, images: M, supervised: T, answers: A.
    patches: P, tokens an image.
    side: S, pixels along an image's side.
  """

  rows: int
  length: int
  images: int
  supervised: int
  answers: int
  patches: int
  side: int


class Owners(NamedTuple):
  """Host-side: to whom the supervised positions of a batch belong.

  Attributes:
    item: the item number of a supervised position; -1 for padding.
    turn: its round in the conversation; -1 for padding.
    answer_item: the item number of an answer; -1 for padding.
  """

  item: Int[np.ndarray, "B T"]
  turn: Int[np.ndarray, "B T"]
  answer_item: Int[np.ndarray, "B A"]


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


def find_shape(
  steps: Sequence[Rows],
  supervised: Int[np.ndarray, " n"],
  turns: Int[np.ndarray, " n"],
  has_image: Sequence[bool] | np.ndarray,
  row_length: int,
  patches: int,
  side: int,
  multiple: int = 1,
) -> Shape:
  """The smallest shape that holds every step: one compilation for all.

  Args:
    steps: packed rows of each step.
    supervised, turns, has_image: of each item.
    row_length: tokens of a row.
    patches, side: tokens and pixels of an image.
    multiple: rows are rounded up to it (the number of row shards).
  """

  def most(values):
    values = np.asarray(values, np.int64)
    return max((int(values[row].sum()) for rows in steps for row in rows), default=0)

  rows = max(len(rows) for rows in steps)
  return Shape(
    rows=-(-rows // multiple) * multiple,
    length=row_length,
    images=max(1, most(has_image)),
    supervised=-(-most(supervised) // 8) * 8,
    answers=max(1, most(turns)),
    patches=patches,
    side=side,
  )


def row_length_for(lengths: Int[np.ndarray, " n"], wanted: int) -> int:
  """The row length in use: `wanted`, or more where a sample is longer."""
  longest = int(np.max(lengths, initial=1))
  return wanted if longest <= wanted else -(-longest // 128) * 128


def assemble(
  rows: Rows,
  samples: dict[int, tuple[Sample, UInt8[np.ndarray, "S S 3"] | None]],
  shape: Shape,
  image_token: int,
) -> tuple[Batch, Owners]:
  """Lays samples into packed rows; rows beyond the given ones are padding."""
  size = (shape.rows, shape.length)
  tokens, positions, segments = (np.zeros(size, np.int32) for _ in range(3))
  patches = np.full(size, -1, np.int32)
  images = np.zeros((shape.rows, shape.images, shape.side, shape.side, 3), np.uint8)
  predict, targets = (
    np.zeros((shape.rows, shape.supervised), np.int32) for _ in range(2)
  )
  weights = np.zeros((shape.rows, shape.supervised), np.float32)
  answers = np.zeros((shape.rows, shape.answers), np.int32)
  item_of, turn_of = (
    np.full((shape.rows, shape.supervised), -1, np.int64) for _ in range(2)
  )
  answer_item = np.full((shape.rows, shape.answers), -1, np.int64)
  for b, items in enumerate(rows):
    start = image = learned = answered = 0
    for place, item in enumerate(items):
      sample, pixels = samples[item]
      end = start + len(sample.tokens)
      tokens[b, start:end] = sample.tokens
      positions[b, start:end] = np.arange(end - start)
      segments[b, start:end] = place + 1
      if pixels is not None:
        at = start + np.flatnonzero(sample.tokens == image_token)
        patches[b, at] = image * shape.patches + np.arange(len(at))
        images[b, image] = pixels
        image += 1
      where = np.flatnonzero(sample.supervised)
      span = slice(learned, learned + len(where))
      predict[b, span] = start + where - 1
      targets[b, span] = sample.tokens[where]
      weights[b, span] = 1
      item_of[b, span] = item
      turn_of[b, span] = sample.turns[where]
      first = where[np.flatnonzero(np.diff(sample.turns[where], prepend=-1))]
      answers[b, answered : answered + len(first)] = start + first - 1
      answer_item[b, answered : answered + len(first)] = item
      start, learned, answered = end, span.stop, answered + len(first)
  batch = Batch(
    tokens, positions, segments, patches, images, predict, targets, weights, answers
  )
  return batch, Owners(item_of, turn_of, answer_item)
