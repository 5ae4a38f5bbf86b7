"""k-center greedy: every row should be near a kept row."""

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
  """Takes the row farthest from all kept rows, repeatedly.

  Sources: Gonzalez 1985 (farthest-first traversal, whose radius is at most twice the
  optimum) and Sener and Savarese 2018 (arXiv:1708.00489; core-sets for training). What
  differs here: embeddings are those of the seed model, scaled to length 1; the first
  row is drawn; in pools of more than `pairwise.BLOCK_ROWS` rows only rows of the same
  group are compared, and each group gets one row first. The gain of a row is its
  distance to the nearest row kept before it.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  embeddings = scores.unit_embeddings("select.strategy k_center")
  order, gain = pick_greedily(
    embeddings, candidates, groups, most_rows(budget, scores), farthest_first
  )
  return first(scores, groups, budget, candidates, order, gain=gain)


def farthest_first(embeddings: Float[np.ndarray, "n D"], forced: int, count: int):
  """Picks rows of one block; see `greedy.Pick`. The first has infinite distance."""
  squared = np.full(len(embeddings), np.inf)
  picks, gains = [], []
  for number in range(count):
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
