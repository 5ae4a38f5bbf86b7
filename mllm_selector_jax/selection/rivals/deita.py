"""DEITA: rows by score, without those that are close to a row already kept."""

import numpy as np

from mllm_selector_jax.selection.eligibility import Scores, drop, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, by_gain, by_score, most_rows
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy

COSINE = 0.9


def deita(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes rows by falling necessity whose cosine with every kept row is below 0.9.

  Source: Liu et al. 2023 (arXiv:2312.15685), with the same threshold. There the score
  is complexity times quality, both rated by language models. Here it is the necessity,
  and the embeddings are those of the seed model.
  """
  from mllm_selector_jax.selection.pairwise import leaders  # imports jax

  candidates = sort_out(scores, groups, rng, options, bounded=False)
  vectors = scores.unit_embeddings("select.strategy deita")
  order = by_score(candidates, candidates.normalised_necessity)
  forced = candidates.forced[order]
  order = np.concatenate([order[forced], order[~forced]])
  one_group, forced = np.zeros(len(order), np.int64), candidates.forced[order]
  # Some leaders may be passed over, so that more are needed than the budget holds.
  most = None if candidates.limits else most_rows(budget, scores)
  arguments = (vectors, order, one_group, forced, COSINE, most)
  keeper = scores.overseer.keep("deita", *arguments)
  with scores.overseer.watch("rows like a kept one") as progress:
    follows = leaders.find_followers(*arguments, progress=progress, keeper=keeper)
  mask = np.zeros(len(vectors), bool)
  mask[order[follows]] = True
  reason = "dropped: nearly the same as a row before it"
  candidates = drop(candidates, mask, reason)
  return by_gain(scores, groups, budget, candidates, candidates.normalised_necessity)


STRATEGY = Strategy(
  deita,
  takes="by necessity, unless near to a kept row (cosine 0.9)",
  source="Liu et al. 2023, arXiv:2312.15685",
  embeddings=True,
)
