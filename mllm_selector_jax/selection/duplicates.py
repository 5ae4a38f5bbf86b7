"""Finds near-duplicates inside groups by the cosine of their embeddings."""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.pairwise import BLOCK_ROWS, make_blocks


def find_duplicates(
  embeddings: Float[np.ndarray, "N D"],
  rows: Int[np.ndarray, " n"],
  groups: Int[np.ndarray, " N"],
  tie: UInt64[np.ndarray, " N"],
  first: Bool[np.ndarray, " N"],
  cosine: float,
  block_rows: int = BLOCK_ROWS,
) -> Bool[np.ndarray, " N"]:
  """Marks near-duplicates: rows close to an earlier row that is not one itself.

  Rows of a group are compared in drawn order, those of `first` before the others. A
  row is a near-duplicate if its cosine with an earlier row, which is not marked
  itself, is above the threshold. The result is exact in groups of up to `block_rows`
  rows. A larger group is cut into blocks, and rows of different blocks are not
  compared.

  Args:
    embeddings: vectors of length 1.
    rows: the rows to compare; all others stay unmarked.
    groups: the group of every row, from 0.
    tie: a random number for each row, which gives the drawn order.
    first: rows that are never marked.
    cosine: the threshold.
    block_rows: the maximum of rows that are compared with each other.

  Returns:
    Whether each row is a near-duplicate.
  """
  duplicate = np.zeros(len(embeddings), bool)
  count = int(groups.max(initial=-1)) + 1
  for block in make_blocks(
    rows, groups, count, tie, first, join_small=False, block_rows=block_rows
  ):
    vectors = embeddings[block]
    near = np.tril(vectors @ vectors.T > cosine, -1)
    for place in np.flatnonzero(near.any(1)):
      row = block[place]
      if not first[row]:
        duplicate[row] = bool((near[place] & ~duplicate[block]).any())
  return duplicate
