"""The strategies: `(scores, groups, budget, rng, options) -> Selection`.

`kl` maximises the objective exactly. The others take the first rows of a fixed
order: `grouped` has strata of necessity whose quotas rise with it (our reading
of the paper's grouped sampling), `random` and `stratified` do not look at
necessity, `top` looks at nothing else. Suspect rows are bounded in `kl` and
`grouped`; the controls stay plain. All randomness is drawn from content.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.selection import budget as budgets
from mllm_selector_jax.selection import draws, objective, shares
from mllm_selector_jax.selection.candidates import (
  CODE,
  Candidates,
  Scores,
  fit,
  sort_out,
)
from mllm_selector_jax.selection.groups import Groups, by_necessity
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.selection import Selection, assemble
from mllm_selector_jax.selection.sorting import float_key, sort_rows

Budget = str | int | budgets.Budget
# Forced rows come first, then what floors decided, then what gains did.
LEVEL = np.full(len(CODE), 2)
LEVEL[CODE["forced in"]], LEVEL[CODE["floor"]] = 0, 1


def select(
  scores: Scores,
  groups: Groups | Int[np.ndarray, " N"],
  budget: Budget,
  rng: int = 0,
  options: SelectOptions | None = None,
) -> Selection:
  """Selects by the strategy that the options name.

  Args:
    scores: the eligible rows; rows set aside do not come in.
    groups: of the same rows; plain numbers from 0 are named after themselves.
    budget: rows, a share of the rows not left out, or training tokens.
    rng: seed of every draw.
    options: `kl` with its defaults if not given.

  Raises:
    InputError: see `candidates.sort_out`, `candidates.fit` and `budget`.
  """
  options = options or SelectOptions()
  if not isinstance(groups, Groups):
    index = np.asarray(groups)
    names = map(str, range(int(index.max(initial=-1)) + 1))
    groups = Groups(index, tuple(names))
  return STRATEGIES[options.strategy](scores, groups, budget, rng, options)


def kl(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """The exact maximum of mean value less lambda times divergence."""
  candidates = sort_out(scores, groups, rng, options, bounded=True)
  limit = _resolve(budget, scores)
  plan = _Plan(candidates, groups, options)
  spare = _by_tie(candidates, candidates.suspect & plan.wanted[groups.index])

  def choose(rows):
    taken, _ = plan.take(rows)
    kept = plan.mask(taken.counts)
    kept[spare[: rows - int(taken.counts.sum())]] = True
    return kept

  rows = fit(limit, scores, candidates, choose)
  taken, floors = plan.take(rows)
  counts, count = taken.counts, int(taken.counts.sum())
  filling = spare[: rows - count]

  order = plan.order
  offset = options.kl_weight * math.log(max(count, 1))
  gain = np.full(len(candidates.tie), np.nan)
  gain[plan.rows[order.rows]] = plan.gains
  threshold = taken.threshold + offset
  chosen = order.place <= counts[order.group]
  forced = candidates.forced[plan.rows[order.rows]]
  # What the gain alone would have taken is not the floor's doing.
  by_floor = chosen & ~forced & (plan.gains < taken.threshold)

  code = candidates.code.copy()
  entry = np.full(len(order.rows), CODE["below threshold"], np.uint8)
  entry[plan.gains >= taken.threshold] = CODE["tied with the threshold"]
  entry[plan.gains == -np.inf] = CODE["target share 0"]
  entry[chosen] = CODE["kept"]
  entry[by_floor] = CODE["floor"]
  entry[forced] = CODE["forced in"]
  code[plan.rows[order.rows]] = entry
  code[filling] = CODE["kept to fill the budget"]

  taken_rows = plan.rows[np.sort(order.rows[chosen])]
  level = LEVEL[code[taken_rows]]
  ranked = sort_rows(~float_key(gain[taken_rows]), level, candidates.tie[taken_rows])
  return assemble(
    candidates,
    groups,
    np.concatenate([taken_rows[ranked], filling]),
    code,
    target=plan.shares,
    quota=plan.quotas(count),
    floor=floors,
    gain=gain + offset,
    threshold=threshold,
    certificate=objective.certify(
      plan.values, plan.gains, order, plan.shares, options.kl_weight, taken, floors
    ),
    warnings=(limit.warning, *_shortage(rows, count, len(filling))),
  )


class _Plan:
  """Gains of the rows that may be taken; from them the optimum of any size."""

  def __init__(self, candidates: Candidates, groups: Groups, options: SelectOptions):
    count = len(groups.names)
    self._options, self._rows = options, len(candidates.tie)
    self.rows = np.flatnonzero(candidates.remaining)
    index = groups.index[self.rows]
    self.tie = candidates.tie[self.rows]
    necessity = candidates.necessity[self.rows]
    forced = candidates.forced[self.rows]
    self.sizes = np.bincount(index, minlength=count)
    self.forced = np.bincount(index[forced], minlength=count)
    self.shares = shares.target_shares(
      self.sizes, options.target, options.tempering, options.target_shares
    )
    # Only a share that was given as 0 keeps suspects of its group out.
    self.wanted = (self.shares > 0) | (options.target != "given")
    self.means = shares.group_means(necessity, index, count)
    score = None
    if options.within == "top":
      score = necessity
    elif options.within == "sample":
      noise = draws.gumbel(draws.splitmix(self.tie))
      score = necessity / options.temperature + noise
    self.order = objective.order_rows(index, count, self.tie, score, forced)
    own = options.within == "top"
    self.values = necessity[self.order.rows] if own else self.means[self.order.group]
    self.gains = objective.gains(
      self.values, self.order, self.shares, options.kl_weight
    )

  def take(self, rows: int):
    """The optimum of so many rows and its floors, fewer if there are no more."""
    rows = min(rows, len(self.rows))
    total = min(int(self._options.floor * rows), rows - int(self.forced.sum()))
    floors = np.maximum(shares.proportional_floors(self.sizes, total), self.forced)
    return objective.take(self.gains, self.order, self.tie, rows, floors), floors

  def mask(self, counts: Int[np.ndarray, " G"]) -> Bool[np.ndarray, " N"]:
    """The first rows of each group, over all rows."""
    kept = np.zeros(self._rows, bool)
    chosen = self.order.place <= counts[self.order.group]
    kept[self.rows[self.order.rows[chosen]]] = True
    return kept

  def quotas(self, rows: int) -> Float[np.ndarray, " G"]:
    """Rows of each group before rounding and floors; unknown for "top"."""
    if self._options.within == "top":
      return np.full(len(self.sizes), np.nan)
    return rows * shares.ideal_quotas(self.means, self.shares, self._options.kl_weight)


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
  return _by_quota(scores, strata, budget, candidates, weights)


def stratified(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Each group by its size, uniform inside.

  Rounded by Webster's rule, which differs from the largest remainder by a row
  at most here and there, but never takes a row away when the budget grows.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  sizes = np.bincount(groups.index[candidates.remaining], minlength=len(groups.names))
  return _by_quota(scores, groups, budget, candidates, sizes.astype(np.float64))


def random(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Uniform over all rows: the control that every selection is held against."""
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  order = _by_tie(candidates, candidates.remaining)
  return _first(scores, groups, budget, candidates, order)


def top(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """The highest necessity; it picks wrong answers first."""
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  rows = np.flatnonzero(candidates.remaining)
  key = ~float_key(candidates.necessity[rows])
  order = rows[sort_rows(key, then=candidates.tie[rows])]
  gain = np.where(candidates.remaining, candidates.necessity, np.nan)
  return _first(scores, groups, budget, candidates, order, gain=gain)


def _by_quota(scores, groups, budget, candidates, weights) -> Selection:
  """Fills groups in proportion to weights, as long as they have rows."""
  rows = np.flatnonzero(candidates.remaining)
  tie = candidates.tie[rows]
  count = len(groups.names)
  order = objective.order_rows(groups.index[rows], count, tie)
  turn = np.empty(len(rows))
  turn[order.rows] = (order.place - 0.5) / weights[order.group]
  ranked = sort_rows(float_key(turn), then=tie)
  target = weights / weights.sum()
  return _first(scores, groups, budget, candidates, rows[ranked], target=target)


def _first(
  scores, groups, budget, candidates, order, gain=None, target=None
) -> Selection:
  """The first rows of an order, forced ones before and suspects after it."""
  limit = _resolve(budget, scores)
  forced = candidates.forced[order]
  spare = _by_tie(candidates, candidates.suspect)
  whole = np.concatenate([order[forced], order[~forced], spare])

  def choose(rows):
    return whole[:rows]

  rows = fit(limit, scores, candidates, choose)
  kept = whole[:rows]
  filling = max(0, rows - len(order))
  code = candidates.code.copy()
  by_gain = kept[int(forced.sum()) : len(order)]
  threshold = np.nan
  if gain is not None:
    threshold = float(gain[by_gain].min(initial=np.inf))
    code[order] = CODE["below threshold"]
    code[order[gain[order] >= threshold]] = CODE["tied with the threshold"]
  code[kept] = CODE["kept"]
  code[candidates.forced] = CODE["forced in"]
  code[kept[len(order) :]] = CODE["kept to fill the budget"]
  return assemble(
    candidates,
    groups,
    kept,
    code,
    target=target,
    quota=None if target is None else target * min(rows, len(order)),
    gain=gain,
    threshold=threshold,
    warnings=(limit.warning, *_shortage(rows, min(rows, len(order)), filling)),
  )


def _by_tie(candidates, mask) -> Int[np.ndarray, " n"]:
  rows = np.flatnonzero(mask)
  return rows[sort_rows(candidates.tie[rows])]


def _resolve(budget: Budget, scores: Scores) -> budgets.Limit:
  eligible = ~scores.flag("left_out")
  tokens = None if scores.tokens is None else scores.tokens[eligible]
  return budgets.resolve(budget, int(eligible.sum()), tokens, "select.budget")


def _shortage(asked: int, taken: int, filling: int) -> list[str]:
  """Warns where rows ran out before the budget did."""
  texts = []
  if filling:
    texts.append(
      f"{filling:,} suspect rows are kept, because only {taken:,} others were left for"
      f" a budget of {asked:,}; a smaller budget or a lower select.bound avoids it."
    )
  if taken + filling < asked:
    texts.append(
      f"{taken + filling:,} rows are kept of a budget of {asked:,}: the rest are in"
      " groups whose target share is 0."
    )
  return texts


STRATEGIES: dict[str, Callable[..., Selection]] = {
  "kl": kl,
  "grouped": grouped,
  "random": random,
  "stratified": stratified,
  "top": top,
}
