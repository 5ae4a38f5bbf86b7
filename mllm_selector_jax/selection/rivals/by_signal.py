"""Rivals that rank rows by one signal: perplexity, EL2N, GraNd, IFD, VisNec."""

import numpy as np

from mllm_selector_jax.selection.eligibility import Scores, drop, sort_out
from mllm_selector_jax.selection.groups import Groups, by_embedding
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, by_gain, by_quota
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy

VISNEC_CLUSTERS = 20


def perplexity(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """The highest perplexity of the answers.

  Marion et al. 2023 (arXiv:2309.04564), who prune pretraining text by it; here
  of the supervised tokens, under the seed model.
  """
  return _highest("perplexity", scores, groups, budget, rng, options)


def el2n(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """The highest error norm.

  Paul, Ganguli and Dziugaite 2021 (arXiv:2107.07075): the L2 norm of softmax
  less one-hot, early in training, mean over ten runs. Here the mean over a
  sample's supervised tokens, under one seed model.
  """
  return _highest("el2n", scores, groups, budget, rng, options)


def grand(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """The highest gradient norm.

  Paul, Ganguli and Dziugaite 2021 (arXiv:2107.07075): the norm of the gradient
  of all weights. Here of the output head's alone, token by token, in mean.
  """
  return _highest("grand", scores, groups, budget, rng, options)


def ifd(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """The highest ratio of the loss with the instruction to the loss without.

  Li et al. 2023 (arXiv:2308.12032); a ratio above 1 drops the row. Here the image
  stays on both sides, and the seed model is tuned on random rows, not on
  cluster samples.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  ratio = scores.signal("ifd", "select.strategy ifd")
  candidates = drop(
    candidates, ratio > 1, "dropped: the instruction does not help (IFD above 1)"
  )
  return by_gain(scores, groups, budget, candidates, ratio)


def visnec(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """The rows of each cluster that need their image most.

  VisNec (2025): the loss without the image less the loss with it; below 0 the
  row is dropped; 20 k-means clusters, the top of each. Here the clusters are of
  the seed model's embeddings and get rows by their size, and the image's tokens
  are left out, not blanked.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  need = scores.signal("visual", "select.strategy visnec")
  embeddings = scores.unit_embeddings("select.strategy visnec")
  clusters = by_embedding(embeddings, VISNEC_CLUSTERS, scores.key, rng)
  candidates = drop(candidates, need < 0, "suspect: less likely with its image")
  sizes = np.bincount(
    clusters.index[candidates.remaining], minlength=len(clusters.names)
  )
  weights = sizes.astype(np.float64)
  return by_quota(scores, clusters, budget, candidates, weights, need)


def _highest(name, scores, groups, budget, rng, options) -> Selection:
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  values = scores.signal(name, f"select.strategy {name}")
  return by_gain(scores, groups, budget, candidates, values)


PERPLEXITY = Strategy(
  perplexity,
  takes="the highest perplexity",
  source="Marion et al. 2023, arXiv:2309.04564",
  signals=("perplexity",),
)
EL2N = Strategy(
  el2n,
  takes="the highest error norm",
  source="Paul et al. 2021, arXiv:2107.07075",
  signals=("el2n",),
)
GRAND = Strategy(
  grand,
  takes="the highest gradient norm",
  source="Paul et al. 2021, arXiv:2107.07075",
  signals=("grand",),
)
IFD = Strategy(
  ifd,
  takes="the highest ratio of loss with to loss without instruction, up to 1",
  source="Li et al. 2023, arXiv:2308.12032",
  signals=("ifd",),
)
VISNEC = Strategy(
  visnec,
  takes="the highest `visual` in each of 20 clusters, not below 0",
  source="VisNec, 2025",
  signals=("visual",),
  embeddings=True,
)
