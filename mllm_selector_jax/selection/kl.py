"""The strategy `kl`: the exact maximum of the objective."""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection import covering, draws, objective, shares
from mllm_selector_jax.selection.eligibility import Candidates, Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.limited import limit_rows
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import (
  Budget,
  by_tie,
  fit_budget,
  resolve,
  shortage,
)
from mllm_selector_jax.selection.reasons import CODE, RESERVED
from mllm_selector_jax.selection.selection import Selection, assemble
from mllm_selector_jax.selection.sorting import float_key, sort_rows
from mllm_selector_jax.selection.strategy import Strategy

# Kept rows are ranked by level: forced rows, rows kept by a floor, rows kept by gain.
LEVEL = np.full(len(CODE), 2)
LEVEL[CODE["forced in"]] = 0
LEVEL[[CODE[RESERVED], CODE["floor"]]] = 1


def kl(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes the rows that maximise mean value minus lambda times divergence.

  The objective is that of `objective.py`, and its maximum is exact. Suspect rows fill
  what is left of the budget. If there are limits on values, the maximum is that of the
  rows which are left if all are taken by falling gain, and the full ones passed over.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=True)
  limit = resolve(budget, scores)
  plan = _Plan(scores, candidates, groups, options)
  if candidates.limits is not None:  # ranking all rows takes as long as a sort
    candidates, _ = limit_rows(candidates, plan.ranked())
    plan = _Plan(scores, candidates, groups, options, plan)
  spare = _Spare(candidates, plan.may_fill, groups)

  def choose(rows):
    taken, _ = plan.take(rows)
    return np.concatenate([plan.first(taken.counts), spare.first(rows - taken.total)])

  rows = fit_budget(limit, scores, candidates, choose)
  taken, floors = plan.take(rows)
  count = taken.total
  filling = spare.first(rows - count)
  code = candidates.code.copy()
  plan.explain(taken, code)
  code[filling] = CODE["kept to fill the budget"]

  gain = np.full(len(code), np.nan)
  gain[plan.order.rows] = plan.gains
  taken_rows = np.sort(plan.first(taken.counts))
  level = LEVEL[code[taken_rows]]
  ranked = sort_rows(~float_key(gain[taken_rows]), level, candidates.tie[taken_rows])
  offset = options.kl_weight * math.log(max(count, 1))
  gain += offset
  return assemble(
    candidates,
    groups,
    np.concatenate([taken_rows[ranked], filling]),
    code,
    target=plan.shares,
    means=plan.means,
    quota=plan.quotas(count),
    floor=floors,
    gain=gain,
    threshold=taken.threshold + offset,
    certificate=objective.certify(
      plan.values,
      plan.gains,
      plan.order,
      plan.shares,
      options.kl_weight,
      taken,
      floors,
      plan.caps,
    ),
    warnings=(limit.warning, *shortage(rows, count, len(filling))),
  )


def find_target(
  scores: Scores, groups: Groups, rng: int, options: SelectOptions
) -> Float[np.ndarray, " G"]:
  """Returns the target shares of `kl`, by which any selection is measured."""
  options = dataclasses.replace(options, strategy="kl")
  candidates = sort_out(scores, groups, rng, options, bounded=True)
  count = len(groups.names)
  sizes = np.bincount(groups.index[candidates.remaining], minlength=count)
  return _find_target(sizes, groups, options, scores.flag("like"))


def _find_target(sizes, groups, options, like) -> Float[np.ndarray, " G"]:
  return shares.target_shares(
    sizes,
    options.target,
    options.tempering,
    options.target_shares,
    groups.names,
    np.bincount(groups.index[like], minlength=len(sizes)),
  )


class _Spare:
  """The suspect rows that may fill the budget, sorted only if they are needed."""

  def __init__(self, candidates: Candidates, may_fill: np.ndarray, groups: Groups):
    self._candidates, self._may_fill, self._groups = candidates, may_fill, groups

  @functools.cached_property
  def _rows(self) -> Int[np.ndarray, " n"]:
    mask = self._candidates.fills() & self._may_fill[self._groups.index]
    return by_tie(self._candidates, mask)

  def first(self, rows: int) -> Int[np.ndarray, " n"]:
    """Returns the first `rows` rows in drawn order, or all if there are fewer."""
    return self._rows[:rows] if rows > 0 else np.zeros(0, np.int64)


class _Plan:
  """The gains of the rows that may be taken, and the optimal selection of any size.

  Attributes:
    remaining: [N] whether each row may be taken.
    sizes, forced: [G] the number of these rows, and of forced rows, in each group.
    shares: [G] the target shares.
    may_fill: [G] whether suspect rows of the group may fill the budget.
    caps: [G] the maximum of rows taken from each group.
    means: [G] the mean normalised necessity.
    order: the rows by group and, inside, in the order in which they are taken.
    values, gains: [n] the value and the gain of each entry of `order.rows`.
  """

  def __init__(
    self,
    scores: Scores,
    candidates: Candidates,
    groups: Groups,
    options: SelectOptions,
    whole: "_Plan | None" = None,
  ):
    """Sorts the rows and computes their gains.

    Args:
      scores, groups, options: those of the selection.
      candidates: from `sort_out`, or from `limit_rows`.
      whole: the plan of the rows before limits, which has the groups' targets, caps and
        means.
    """
    from mllm_selector_jax.selection import marginal_gains  # imports jax

    count = len(groups.names)
    self._options, self._candidates = options, candidates
    self._tie = candidates.tie
    necessity, remaining = candidates.normalised_necessity, candidates.remaining
    self.remaining = remaining
    score = None
    if options.within == "top":
      score = necessity
    elif options.within == "sample":
      noise = draws.gumbel(draws.splitmix(self._tie))
      score = necessity / options.temperature + noise
    elif options.within == "cover":
      score = covering.cover_groups(
        scores.unit_embeddings("select.within cover"),
        groups.index,
        self._tie,
        candidates.forced,
        remaining if whole is None else whole.remaining,
        remaining,
        necessity,
        overseer=scores.overseer,
      )
    self.order = objective.order_rows(
      groups.index, count, self._tie, score, candidates.forced, remaining
    )
    self.sizes = np.diff(self.order.starts)
    self.forced = np.bincount(groups.index[candidates.forced], minlength=count)
    if whole is None:
      self.shares = _find_target(self.sizes, groups, options, scores.flag("like"))
      caps = np.ceil(options.cap * self.sizes - 1e-9).astype(np.int64)
      self.means = shares.group_means(necessity, groups.index, count, remaining)
    else:
      self.shares, self.means, caps = whole.shares, whole.means, whole.caps
    # Suspect rows of a group stay out only if the user set its share to 0.
    self.may_fill = (self.shares > 0) | (options.target not in ("given", "like"))
    self.caps: Int[np.ndarray, " G"] = np.maximum(caps, self.forced)
    # Rows that are drawn, and not ranked, all have the expected value of their group.
    if options.within == "top":
      self.values = necessity[self.order.rows]
    else:
      self.values = np.repeat(self.means, self.sizes)
    self.gains = marginal_gains.gains(
      self.values, self.order, self.shares, options.kl_weight
    )

  def ranked(self) -> Int[np.ndarray, " n"]:
    """Returns the rows by falling gain; ties are in drawn order."""
    rows = self.order.rows
    return rows[sort_rows(~float_key(self.gains), then=self._tie[rows])]

  def take(self, rows: int):
    """Returns the optimal `objective.Taken` for a number of rows, and the floors.

    Fewer rows are taken if there are no more.
    """
    rows = min(rows, len(self.order.rows))
    total = min(int(self._options.floor * rows), rows - int(self.forced.sum()))
    floors = np.maximum(shares.proportional_floors(self.sizes, total), self.forced)
    floors = np.minimum(floors, self.caps)
    taken = objective.take(self.gains, self.order, self._tie, rows, floors, self.caps)
    return taken, floors

  def first(self, counts: Int[np.ndarray, " G"]) -> Int[np.ndarray, " n"]:
    """Returns the first `counts[c]` rows of each group c."""
    return self.order.rows[self.order.within(0, counts)]

  def explain(self, taken: objective.Taken, code: np.ndarray) -> None:
    """Writes the code of each row's reason into `code`, in place."""
    order, gains = self.order, self.gains
    chosen = order.within(0, taken.counts)
    entry = np.full(len(order.rows), CODE["below threshold"], np.uint8)
    entry[gains >= taken.threshold] = CODE["tied with the threshold"]
    entry[order.within(self.caps, self.sizes)] = CODE["above its group's cap"]
    entry[gains == -np.inf] = CODE["target share 0"]
    entry[chosen] = CODE["kept"]
    # Of the rows within a floor, only those whose gain would not suffice are due to it.
    entry[chosen & (gains < taken.threshold)] = CODE["floor"]
    code[order.rows] = entry
    self._candidates.mark_forced(code)

  def quotas(self, rows: int) -> Float[np.ndarray, " G"]:
    """Returns the rows of each group before rounding and floors; NaN for "top"."""
    if self._options.within == "top":
      return np.full(len(self.sizes), np.nan)
    return rows * shares.ideal_quotas(self.means, self.shares, self._options.kl_weight)


STRATEGY = Strategy(
  kl,
  takes="the maximum of the objective",
  source="our reading of MLLM-Selector",
  groups=True,
  bounded=True,
  settings=(
    *("kl_weight", "target", "target_shares", "tempering"),
    *("within", "temperature", "floor", "cap"),
  ),
)
