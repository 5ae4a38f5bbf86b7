"""Near-duplicates inside a group: rows whose embedding a kept one nearly has."""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.pairwise import MOST, make_blocks


def find_duplicates(
  embeddings: Float[np.ndarray, "N D"],
  rows: Int[np.ndarray, " n"],
  groups: Int[np.ndarray, " N"],
  tie: UInt64[np.ndarray, " N"],
  first: Bool[np.ndarray, " N"],
  cosine: float,
  most: int = MOST,
) -> Bool[np.ndarray, " N"]:
  """Rows whose cosine with an earlier one of their group, itself none, is above.

  Of each set of near-duplicates the first stays: one of `first`, or the first as
  drawn. Exact in groups of up to `most` rows; larger ones are compared in pieces.

  Args:
    embeddings: of length 1.
    rows: the rows to compare; the others are not looked at.
    groups: of all rows.
    tie: a draw a row.
    first: rows that always stay.
    cosine: the threshold.
    most: rows that are compared with each other.
  """
  found = np.zeros(len(embeddings), bool)
  count = int(groups.max(initial=-1)) + 1
  for block in make_blocks(rows, groups, count, tie, first, whole=False, most=most):
    own = embeddings[block]
    near = np.tril(own @ own.T > cosine, -1)
    for place in np.flatnonzero(near.any(1)):
      row = block[place]
      if not first[row]:
        found[row] = bool((near[place] & ~found[block]).any())
  return found
