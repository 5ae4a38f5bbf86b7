"""k-center greedy: every row near to a kept one."""

import numpy as np
from jaxtyping import Float

from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, first, most_rows
from mllm_selector_jax.selection.rivals.greedy import pick_greedily
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy


def k_center(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """The row farthest from all kept ones, again and again.

  Gonzalez 1985 (farthest first, at most twice the best radius); as a core-set
  for training Sener and Savarese 2018 (arXiv:1708.00489). What differs: unit
  embeddings of the seed model; the first row is drawn; in pools of more than
  `pairwise.MOST` rows distances count inside groups, each of which gets one row
  first. The gain is the distance to the nearest row kept before.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  embeddings = scores.unit_embeddings("select.strategy k_center")
  order, gain = pick_greedily(
    embeddings, candidates, groups, most_rows(budget, scores), farthest_first
  )
  return first(scores, groups, budget, candidates, order, gain=gain)


def farthest_first(embeddings: Float[np.ndarray, "n D"], forced: int, wanted: int):
  """Picks of one block, see `greedy.Pick`; the first has infinite distance."""
  squared = np.full(len(embeddings), np.inf)
  picks, gains = [], []
  for number in range(wanted):
    pick = number if number < forced else int(squared.argmax())
    picks.append(pick)
    gains.append(np.inf if number < forced else squared[pick])
    product = embeddings @ embeddings[pick]
    np.minimum(squared, np.maximum(2 - 2 * product, 0), out=squared)
    squared[pick] = 0
  return np.array(picks, np.int64), np.sqrt(np.array(gains)), np.sqrt(squared)


STRATEGY = Strategy(
  k_center,
  takes="the farthest from all kept rows",
  source="Gonzalez 1985; Sener and Savarese 2018, arXiv:1708.00489",
  embeddings=True,
  groups=True,
)
