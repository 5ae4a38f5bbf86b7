"""A strategy: the rows with the most tokens."""

import numpy as np

from mllm_selector_jax.selection.eligibility import sort_out
from mllm_selector_jax.selection.ordered import by_gain
from mllm_selector_jax.selection.strategy import Strategy


def longest(scores, groups, budget, rng, options):
  """The rows with the most training tokens that the bound does not suspect."""
  candidates = sort_out(scores, groups, rng, options, bounded=True)
  return by_gain(scores, groups, budget, candidates, scores.tokens.astype(np.float64))


LONGEST = Strategy(longest, takes="the rows with the most tokens", bounded=True)
