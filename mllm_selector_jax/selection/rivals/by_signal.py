"""Strategies that rank rows by one signal: perplexity, EL2N, GraNd, IFD, VisNec."""

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
  """Takes the rows whose answers have the highest perplexity.

  Source: Marion et al. 2023 (arXiv:2309.04564), who prune pretraining text. Here the
  perplexity is that of the supervised tokens under the seed model.
  """
  return _highest("perplexity", scores, groups, budget, rng, options)


def el2n(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes the rows with the highest error norm (EL2N).

  Source: Paul, Ganguli and Dziugaite 2021 (arXiv:2107.07075), where it is the L2 norm
  of softmax minus one-hot, early in training, averaged over ten runs. Here it is
  averaged over a sample's supervised tokens, under one seed model.
  """
  return _highest("el2n", scores, groups, budget, rng, options)


def grand(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes the rows with the highest gradient norm (GraNd).

  Source: Paul, Ganguli and Dziugaite 2021 (arXiv:2107.07075), where it is the norm of
  the gradient of all weights. Here it is that of the output head's weights, for each
  supervised token, averaged over the tokens.
  """
  return _highest("grand", scores, groups, budget, rng, options)


def ifd(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes the highest ratios of the loss with the instruction to the loss without.

  Source: Li et al. 2023 (arXiv:2308.12032). A row with a ratio above 1 is dropped. Here
  both losses are computed with the image, and the seed model is tuned on random rows
  instead of samples of clusters.
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
  """Takes the rows of each cluster that need their image most.

  Source: VisNec (2025). The score is the loss without the image minus the loss with it;
  a row with a score below 0 is dropped, and the top of each of 20 k-means clusters is
  taken. Here the clusters are those of the seed model's embeddings, their quotas are
  proportional to their sizes, and without the image means that its tokens are left
  out, not that it is blank.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  need = scores.signal("visual", "select.strategy visnec")
  vectors = scores.unit_embeddings("select.strategy visnec")
  overseer = scores.overseer
  clusters = by_embedding(
    *(vectors, VISNEC_CLUSTERS, scores.key, rng),
    watch=lambda title: overseer.watch(f"clusters: {title}"),
    keeper=overseer.keep("visnec", vectors, scores.key, rng),
  )
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
