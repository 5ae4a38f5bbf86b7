"""Selects the first rows of a fixed order, so that larger budgets only add rows."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection import budget as budgets
from mllm_selector_jax.selection import objective
from mllm_selector_jax.selection.eligibility import Candidates, Scores
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.limited import limit_rows
from mllm_selector_jax.selection.reasons import CODE
from mllm_selector_jax.selection.selection import Selection, assemble
from mllm_selector_jax.selection.shares import normalise
from mllm_selector_jax.selection.sorting import float_key, sort_rows

Budget = str | int | budgets.Budget


def by_quota(
  scores: Scores,
  groups: Groups,
  budget: Budget,
  candidates: Candidates,
  weights: Float[np.ndarray, " G"],
  score: Float[np.ndarray, " N"] | None = None,
) -> Selection:
  """Takes rows from groups in proportion to weights, as long as they have rows.

  Args:
    scores: the scores of all rows.
    groups: the groups of all rows.
    budget: the budget, in any form.
    candidates: from `sort_out`.
    weights: the weight of each group, not negative.
    score: the order inside each group, the highest first; by default it is drawn.
  """
  candidates, ranked = limit_quotas(candidates, groups, weights, score)
  target = normalise(weights)
  return first(scores, groups, budget, candidates, ranked, target=target)


def limit_quotas(
  candidates, groups, weights, score=None
) -> tuple[Candidates, Int[np.ndarray, " n"]]:
  """Sorts the remaining rows by `quota_order`, without those that limits pass over.

  The others of a group take the places of rows that are passed over. Arguments are as
  for `by_quota`.

  Returns:
    The candidates from `limit_rows`, and the numbers of the rows that remain.
  """
  ranked = quota_order(candidates, groups, weights, score)
  limited, _ = limit_rows(candidates, ranked)
  if limited is candidates:
    return candidates, ranked
  return limited, quota_order(limited, groups, weights, score)


def quota_order(candidates, groups, weights, score=None) -> Int[np.ndarray, " n"]:
  """Sorts the remaining rows by (n - 1/2) / weight of their group (Webster's method).

  Here n is the place of the row in its group, from 1. Arguments are as for `by_quota`.

  Returns:
    The numbers of the remaining rows.
  """
  rows = np.flatnonzero(candidates.remaining)
  tie = candidates.tie[rows]
  order = objective.order_rows(
    groups.index[rows],
    len(groups.names),
    tie,
    None if score is None else score[rows],
    candidates.forced[rows],
  )
  turn = np.empty(len(rows))
  turn[order.rows] = (order.place - 0.5) / np.maximum(weights, 1e-290)[order.group]
  return rows[sort_rows(float_key(turn), then=tie)]


def by_score(
  candidates: Candidates, score: Float[np.ndarray, " N"]
) -> Int[np.ndarray, " n"]:
  """Sorts the remaining rows, the highest score first; ties are in drawn order."""
  rows = np.flatnonzero(candidates.remaining)
  return rows[sort_rows(~float_key(score[rows]), then=candidates.tie[rows])]


def by_gain(
  scores: Scores,
  groups: Groups,
  budget: Budget,
  candidates: Candidates,
  score: Float[np.ndarray, " N"],
) -> Selection:
  """Takes the rows with the highest score, which is their gain."""
  order = by_score(candidates, score)
  gain = np.where(candidates.remaining, score, np.nan)
  return first(scores, groups, budget, candidates, order, gain=gain)


def most_rows(budget: Budget, scores: Scores) -> int:
  """Returns the maximum of rows that a budget can hold.

  A greedy strategy has to order no more rows than these.
  """
  limit = resolve(budget, scores)
  if limit.cost is None:
    return limit.rows
  cost = scores.cost(limit.unit)
  assert cost is not None, "`resolve` refuses a limit on a cost that is not known"
  cost = np.sort(cost[~scores.flag("left_out")])
  return int(np.searchsorted(np.cumsum(cost), limit.cost, side="right"))


def first(
  scores: Scores,
  groups: Groups,
  budget: Budget,
  candidates: Candidates,
  order: Int[np.ndarray, " n"],
  gain: Float[np.ndarray, " N"] | None = None,
  target: Float[np.ndarray, " G"] | None = None,
) -> Selection:
  """Takes the first rows of an order, after forced rows and before suspect ones.

  Args:
    scores: the scores of all rows.
    groups: the groups of all rows.
    budget: the budget, in any form.
    candidates: from `sort_out`.
    order: all remaining rows.
    gain: a number for each row that never increases along the order; None if the
      order follows from no such number.
    target: the target shares of the groups, for the table.
  """
  limit = resolve(budget, scores)
  candidates, order = limit_rows(candidates, order)
  forced = candidates.forced[order]
  spare = by_tie(candidates, candidates.fills())
  full_order = np.concatenate([order[forced], order[~forced], spare])

  def choose(rows):
    return full_order[:rows]

  wanted = fit_budget(limit, scores, candidates, choose)
  rows = min(wanted, len(full_order))
  kept = full_order[:rows]
  filling = max(0, rows - len(order))
  code = candidates.code.copy()
  kept_by_gain = kept[int(forced.sum()) : len(order)]
  threshold = np.nan
  if gain is not None:
    threshold = float(gain[kept_by_gain].min(initial=np.inf))
    code[order] = CODE["below threshold"]
    code[order[gain[order] >= threshold]] = CODE["tied with the threshold"]
  code[kept] = CODE["kept"]
  candidates.mark_forced(code)
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
    warnings=(limit.warning, *shortage(wanted, min(rows, len(order)), filling)),
  )


def fit_budget(
  limit: budgets.Limit,
  scores: Scores,
  candidates: Candidates,
  choose: Callable[[int], np.ndarray],
) -> int:
  """Returns the number of rows to keep within a limit; see `budget.fit`."""
  reserved = candidates.reserved
  return budgets.fit(
    limit,
    scores.cost(limit.unit),
    candidates.forced,
    choose,
    0 if reserved is None else int(reserved.sum()),
  )


def by_tie(candidates: Candidates, mask) -> Int[np.ndarray, " n"]:
  """Returns the rows of a mask in drawn order."""
  rows = np.flatnonzero(mask)
  return rows[sort_rows(candidates.tie[rows])]


def resolve(budget: Budget, scores: Scores) -> budgets.Limit:
  """Converts a budget to a limit on the rows that are not left out."""
  eligible = ~scores.flag("left_out")
  unit = budgets.parse(budget, "select.budget").unit
  cost = scores.cost(unit)
  costs = {} if cost is None else {unit: cost[eligible]}
  return budgets.resolve(budget, int(eligible.sum()), costs, "select.budget")


def shortage(budget: int, taken: int, filling: int) -> list[str]:
  """Returns warnings if there are too few rows to fill the budget as intended.

  Args:
    budget: the number of rows in the budget.
    taken: the number of kept rows that are not suspect.
    filling: the number of suspect rows that are kept.
  """
  texts = []
  if filling:
    texts.append(
      f"{filling:,} suspect or dropped rows are kept, because only {taken:,} others"
      f" were left for a budget of {budget:,}; a smaller budget or looser bounds"
      " (select.bound, .competence, .duplicates) avoid it."
    )
  if taken + filling < budget:
    texts.append(
      f"{taken + filling:,} rows are kept of a budget of {budget:,}: the rest are in"
      " groups whose target share is 0, above a group's cap, or passed over by"
      " select.most."
    )
  return texts
