"""Plain strategies: random, stratified, top, middle, and the paper's `grouped`.

Suspect rows are bounded in `grouped` alone; the controls stay plain.
"""

import numpy as np

from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups, by_necessity
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import (
  Budget,
  by_gain,
  by_quota,
  by_tie,
  first,
)
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy


def grouped(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Strata of necessity, quotas rising with it (1, 2, ...), uniform inside.

  Our reading of the paper's grouped sampling. A stratum that runs out leaves
  its rows to the others. Suspects are bounded inside the groups that come in.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=True)
  strata = by_necessity(candidates.necessity, options.strata)
  weights = np.arange(1.0, options.strata + 1)
  return by_quota(scores, strata, budget, candidates, weights)


def stratified(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Each group by its size, uniform inside.

  Rounded by Webster's rule, which differs from the largest remainder by a row
  at most here and there, but never takes a row away when the budget grows.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  sizes = np.bincount(groups.index[candidates.remaining], minlength=len(groups.names))
  return by_quota(scores, groups, budget, candidates, sizes.astype(np.float64))


def random(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Uniform over all rows: the control that every selection is held against."""
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  order = by_tie(candidates, candidates.remaining)
  return first(scores, groups, budget, candidates, order)


def top(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """The highest necessity; it picks wrong answers first."""
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  return by_gain(scores, groups, budget, candidates, candidates.necessity)


def middle(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """The rows nearest to the median of necessity.

  Marion et al. 2023 (arXiv:2309.04564) prune to the middle of perplexity, by
  quantiles; here by rank-normalised necessity, which is the same rows where it
  is the loss or the perplexity, but for rows that the seed was tuned on.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  nearness = 1 - np.abs(2 * candidates.necessity - 1)
  return by_gain(scores, groups, budget, candidates, nearness)


GROUPED = Strategy(
  grouped,
  takes="strata of necessity, quotas rising with it",
  source="our reading of the paper's grouped sampling",
  bounded=True,
)
STRATIFIED = Strategy(
  stratified, takes="rows of each group by its size", source="control", groups=True
)
RANDOM = Strategy(random, takes="rows at random", source="control")
TOP = Strategy(top, takes="the highest necessity")
MIDDLE = Strategy(
  middle,
  takes="nearest to the median of necessity",
  source="Marion et al. 2023, arXiv:2309.04564",
)
