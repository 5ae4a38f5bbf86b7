"""Finds near-duplicates inside groups by the cosine of their embeddings."""

import numpy as np
from jaxtyping import Bool, Int, UInt64

from mllm_selector_jax.selection.overseer import NOBODY, Overseer
from mllm_selector_jax.selection.pairwise.blocks import sort_by_group
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows


def find_duplicates(
  vectors: UnitRows,
  rows: Int[np.ndarray, " n"],
  groups: Int[np.ndarray, " N"],
  tie: UInt64[np.ndarray, " N"],
  first: Bool[np.ndarray, " N"],
  cosine: float,
  overseer: Overseer = NOBODY,
) -> Bool[np.ndarray, " N"]:
  """Marks near-duplicates: rows close to an earlier row that is not one itself.

  Rows of a group, of any size, are compared in drawn order, those of `first` before the
  others. A row is a near-duplicate if its cosine with an earlier row, which is not
  marked itself, is above the threshold.

  Args:
    vectors: the rows of the pool.
    rows: the rows to compare; all others stay unmarked.
    groups: the group of every row, from 0.
    tie: a random number for each row, which gives the drawn order.
    first: rows that are never marked.
    cosine: the threshold.
    overseer: watches the comparisons and keeps what they found.

  Returns:
    Whether each row is a near-duplicate.
  """
  from mllm_selector_jax.selection.pairwise import leaders  # imports jax

  ordered = sort_by_group(rows, groups, tie, first)
  duplicate = np.zeros(len(vectors), bool)
  arguments = (vectors, ordered.rows, ordered.groups, first[ordered.rows], cosine)
  keeper = overseer.keep("duplicates", *arguments)
  with overseer.watch("near-duplicates") as progress:
    duplicate[ordered.rows] = leaders.find_followers(
      *arguments, progress=progress, keeper=keeper
    )
  return duplicate
