"""DEITA: rows by score, without those that are close to a row already kept."""

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.eligibility import Scores, drop, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, by_gain, by_score, most_rows
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy

COSINE = 0.9
CHUNK = 512


def deita(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes rows by falling necessity whose cosine with every kept row is below 0.9.

  Source: Liu et al. 2023 (arXiv:2312.15685), with the same threshold. There the score
  is complexity times quality, both rated by language models. Here it is the necessity,
  and the embeddings are those of the seed model.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  embeddings = scores.unit_embeddings("select.strategy deita")
  order = by_score(candidates, candidates.normalised_necessity)
  forced = order[candidates.forced[order]]
  order = np.concatenate([forced, order[~candidates.forced[order]]])
  near = find_near(embeddings[order], len(forced), most_rows(budget, scores))
  mask = np.zeros(len(embeddings), bool)
  mask[order[near]] = True
  reason = "dropped: nearly the same as a row before it"
  candidates = drop(candidates, mask, reason)
  return by_gain(scores, groups, budget, candidates, candidates.normalised_necessity)


def find_near(
  embeddings: Float[np.ndarray, "n D"], forced: int, count: int
) -> Int[np.ndarray, " k"]:
  """Finds the rows that are passed over because they are close to one taken before.

  Args:
    embeddings: vectors of length 1, in the order in which rows are considered.
    forced: the number of rows, the first ones, that are taken in any case.
    count: the number of rows to take; the search ends when they are taken.

  Returns:
    The places of the rows that are passed over.
  """
  limit = min(count, len(embeddings))
  taken = np.empty((limit, embeddings.shape[1]), np.float32)
  near: list[int] = []
  filled = 0  # the number of rows in `taken`
  for start in range(0, len(embeddings), CHUNK):
    part = embeddings[start : start + CHUNK]
    closest = np.full(len(part), -1.0, np.float32)
    for other in range(0, filled, 1 << 14):
      product = part @ taken[other : min(other + (1 << 14), filled)].T
      np.maximum(closest, product.max(1), out=closest)
    inside = part @ part.T
    for i in range(len(part)):
      if filled == limit:
        return np.array(near, np.int64)
      if closest[i] >= COSINE and start + i >= forced:
        near.append(start + i)
        continue
      taken[filled] = part[i]
      filled += 1
      np.maximum(closest[i + 1 :], inside[i, i + 1 :], out=closest[i + 1 :])
  return np.array(near, np.int64)


STRATEGY = Strategy(
  deita,
  takes="by necessity, unless near to a kept row (cosine 0.9)",
  source="Liu et al. 2023, arXiv:2312.15685",
  embeddings=True,
)
