"""Packed rows of training: several samples share a row of tokens.

A plan is made from lengths alone, before anything is read. Samples in a row
never see one another: segments keep them apart (models/attention.py). Scoring,
where samples of one image share its tokens, has plans of its own (tree_packing.py).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from mllm_selector_jax.data.packing.best_fit import best_fit

Rows = list[list[int]]  # packed rows, each a list of the caller's item numbers


def pack(lengths: Sequence[int] | Int[np.ndarray, " n"], row_length: int) -> Rows:
  """Best-fit decreasing: each item goes where it leaves the least room.

  Args:
    lengths: tokens of each item; none may exceed `row_length`.
    row_length: tokens of a row.

  Returns:
    Rows of item numbers, in the order in which the rows were opened.
  """
  lengths = np.asarray(lengths, np.int64)
  if len(lengths):
    bounds = lengths.min(), lengths.max(), row_length
    assert 0 < bounds[0] and bounds[1] <= row_length, bounds
  order = np.argsort(-lengths, kind="stable")
  bins = best_fit(lengths[order], row_length)
  rows: Rows = [[] for _ in range(int(bins.max(initial=-1)) + 1)]
  for item, row in zip(order.tolist(), bins.tolist(), strict=True):
    rows[row].append(item)
  return rows


def training_steps(
  count: int,
  lengths: Int[np.ndarray, " n"],
  batch: int,
  epochs: int,
  seed: int,
  row_length: int,
  has_image: Bool[np.ndarray, " n"] | None = None,
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
    has_image: of each sample; given, a step has samples with or without image, not
      both (`_order_by_modality`).
  """
  steps = []
  for epoch in range(epochs):
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(count)
    if has_image is not None:
      order = _order_by_modality(order, has_image, batch, rng)
    for start in range(0, count, batch):
      items = order[start : start + batch]
      rows = pack(lengths[items], row_length)
      steps.append([[int(items[i]) for i in row] for row in rows])
  return steps


def _order_by_modality(
  order: Int[np.ndarray, " n"],
  has_image: Bool[np.ndarray, " n"],
  batch: int,
  rng: np.random.Generator,
) -> Int[np.ndarray, " n"]:
  """The order, so that a cut every `batch` samples keeps samples of one kind together.

  As LLaVA's group_by_modality_length (llava/train/llava_trainer.py): whole steps of
  either kind in random order; what is left of both fills a step before them, if it
  can, and the last one. LLaVA then sorts a step by length to spread it over devices;
  here packing does that.
  """
  whole, left = [], []
  for wanted in (True, False):
    own = order[has_image[order] == wanted]
    cut = len(own) - len(own) % batch
    whole.extend(own[:cut].reshape(-1, batch))
    left.extend(own[cut:])
  first = len(left) // batch * batch
  steps = [whole[place] for place in rng.permutation(len(whole))]
  return np.concatenate([left[:first], *steps, left[first:]]).astype(order.dtype)


def row_length_for(lengths: Int[np.ndarray, " n"], wanted: int) -> int:
  """Returns `wanted`, or a greater row length if a sample is longer."""
  longest = int(np.max(lengths, initial=1))
  return wanted if longest <= wanted else -(-longest // 128) * 128
