"""DEITA-style: by score, but nothing that is near to a row already kept."""

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
  """Rows by falling necessity whose cosine with every kept row is below 0.9.

  Liu et al. 2023 (arXiv:2312.15685), whose score is complexity times quality,
  both rated by language models, with the same threshold. Here it is necessity, and
  embeddings are the seed model's.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  embeddings = scores.unit_embeddings("select.strategy deita")
  order = by_score(candidates, candidates.necessity)
  forced = order[candidates.forced[order]]
  order = np.concatenate([forced, order[~candidates.forced[order]]])
  near = find_near(embeddings[order], len(forced), most_rows(budget, scores))
  mask = np.zeros(len(embeddings), bool)
  mask[order[near]] = True
  reason = "dropped: nearly the same as a row before it"
  candidates = drop(candidates, mask, reason)
  return by_gain(scores, groups, budget, candidates, candidates.necessity)


def find_near(
  embeddings: Float[np.ndarray, "n D"], forced: int, wanted: int
) -> Int[np.ndarray, " k"]:
  """Places whose row is near to one that was taken before, until enough are taken.

  Args:
    embeddings: of length 1, in the order in which they are taken.
    forced: so many of the first are taken in any case.
    wanted: rows to take.
  """
  taken = np.empty((min(wanted, len(embeddings)), embeddings.shape[1]), np.float32)
  near: list[int] = []
  count = 0
  for start in range(0, len(embeddings), CHUNK):
    part = embeddings[start : start + CHUNK]
    closest = np.full(len(part), -1.0, np.float32)
    for other in range(0, count, 1 << 14):
      product = part @ taken[other : min(other + (1 << 14), count)].T
      np.maximum(closest, product.max(1), out=closest)
    inside = part @ part.T
    for i in range(len(part)):
      if count == len(taken):
        return np.array(near, np.int64)
      if closest[i] >= COSINE and start + i >= forced:
        near.append(start + i)
        continue
      taken[count] = part[i]
      count += 1
      np.maximum(closest[i + 1 :], inside[i, i + 1 :], out=closest[i + 1 :])
  return np.array(near, np.int64)


STRATEGY = Strategy(
  deita,
  takes="by necessity, unless near to a kept row (cosine 0.9)",
  source="Liu et al. 2023, arXiv:2312.15685",
  embeddings=True,
)
