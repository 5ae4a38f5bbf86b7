"""Plain strategies: random, stratified, reference, top, middle, the paper's `grouped`.

Only `grouped` leaves suspect rows out.
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
from mllm_selector_jax.selection.reasons import IN_REFERENCE
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.sorting import float_key, sort_rows
from mllm_selector_jax.selection.strategy import Strategy
from mllm_selector_jax.types import InputError


def grouped(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Samples uniformly inside necessity strata, with quotas in proportion 1, 2, ...

  This is our reading of the paper's grouped sampling. If a stratum has too few rows,
  the others get its quota. Suspect rows are found inside `groups`, not inside the
  strata.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=True)
  strata = by_necessity(candidates.normalised_necessity, options.strata)
  weights = np.arange(1.0, options.strata + 1)
  return by_quota(scores, strata, budget, candidates, weights)


def stratified(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Samples uniformly inside each group, with quotas in proportion to group sizes.

  Quotas are rounded by Webster's method. It differs from the method of largest
  remainders by single rows, but never takes a row from a group when the budget grows.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  sizes = np.bincount(groups.index[candidates.remaining], minlength=len(groups.names))
  return by_quota(scores, groups, budget, candidates, sizes.astype(np.float64))


def random(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Samples uniformly from all rows: the control for every other selection."""
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  order = by_tie(candidates, candidates.remaining)
  return first(scores, groups, budget, candidates, order)


def reference(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes the rows of the reference at random, and then all others at random.

  The budget "100%ref" is the reference itself. If the reference has scores, its rows
  are taken by falling score; of equal ones, which comes first is drawn.
  """
  members = scores.flag("reference")
  if scores.reference is None:
    raise InputError(
      "select.strategy reference takes the rows of a reference, and there is none; give"
      " the mixture that is trained on today, as --config.select.reference=FILE."
    )
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  order = by_tie(candidates, candidates.remaining)
  own, others = order[members[order]], order[~members[order]]
  if scores.reference_score is not None:
    value = scores.reference_score[own]
    own = own[sort_rows(~float_key(value), then=candidates.tie[own])]
  order = np.concatenate([own, others])
  chosen = first(scores, groups, budget, candidates, order)
  named = members & (chosen.reason == "kept")
  return chosen._replace(reason=np.where(named, IN_REFERENCE, chosen.reason))


def top(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes the rows with the highest necessity, wrong answers among the first."""
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  return by_gain(scores, groups, budget, candidates, candidates.normalised_necessity)


def middle(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes the rows whose necessity is nearest to the median.

  Marion et al. 2023 (arXiv:2309.04564) keep the middle quantiles of perplexity. Here
  the normalised necessity takes its place. If the necessity is the loss or the
  perplexity, the rows are the same, except for those that the seed model was tuned on.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  nearness = 1 - np.abs(2 * candidates.normalised_necessity - 1)
  return by_gain(scores, groups, budget, candidates, nearness)


GROUPED = Strategy(
  grouped,
  takes="rows at random in strata of necessity, with quotas that rise with it",
  source="our reading of the paper's grouped sampling",
  bounded=True,
)
STRATIFIED = Strategy(
  stratified,
  takes="rows at random in each group, in proportion to its size",
  source="control",
  groups=True,
)
RANDOM = Strategy(random, takes="rows at random", source="control")
REFERENCE = Strategy(
  reference,
  takes="the rows of `select.reference`, the mixture that is trained on today",
  source="control",
)
TOP = Strategy(top, takes="the highest necessity")
MIDDLE = Strategy(
  middle,
  takes="the rows nearest to the median of necessity",
  source="Marion et al. 2023, arXiv:2309.04564",
)
