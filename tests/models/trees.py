"""Rows of trees, trunks with their branches, laid out for attention."""

from collections.abc import Sequence

import numpy as np

from mllm_selector_jax.models.attention import Layout

Tree = tuple[int, Sequence[int]]  # tokens of the trunk, and of each branch


def lay_out(rows: Sequence[Sequence[Tree]], length: int) -> Layout:
  """Trees one after the other, branches after their trunk, then padding."""
  segments, positions = np.zeros((2, len(rows), length), np.int32)
  prefixes = np.full((len(rows), length), -1, np.int32)
  for row, trees in enumerate(rows):
    start = number = 0
    for trunk, branches in trees:
      own = number + 1
      for part, tokens in enumerate([trunk, *branches]):
        number += 1
        here = slice(start, start + tokens)
        segments[row, here] = number
        positions[row, here] = np.arange(tokens) + (trunk if part else 0)
        if part:
          prefixes[row, here] = own
        start += tokens
    assert start <= length, (start, length)
  return Layout(segments, positions, prefixes)
