"""Strategies that take the first rows of a fixed order, so that budgets nest."""

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection import budget as budgets
from mllm_selector_jax.selection import objective
from mllm_selector_jax.selection.eligibility import Candidates, Scores, fit
from mllm_selector_jax.selection.groups import Groups
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
  """Fills groups in proportion to weights, as long as they have rows.

  Args:
    scores: of all rows.
    groups: of all rows.
    budget: as written.
    candidates: from `sort_out`.
    weights: not negative.
    score: order inside a group, the highest first; drawn by default.
  """
  rows = np.flatnonzero(candidates.remaining)
  ranked = rows[quota_order(candidates, groups, weights, score)]
  target = normalise(weights)
  return first(scores, groups, budget, candidates, ranked, target=target)


def quota_order(candidates, groups, weights, score=None) -> Int[np.ndarray, " n"]:
  """Places among the remaining rows, by (n - 1/2) / weight (Webster's rule)."""
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
  return sort_rows(float_key(turn), then=tie)


def by_score(
  candidates: Candidates, score: Float[np.ndarray, " N"]
) -> Int[np.ndarray, " n"]:
  """The remaining rows, the highest score first, then as drawn."""
  rows = np.flatnonzero(candidates.remaining)
  return rows[sort_rows(~float_key(score[rows]), then=candidates.tie[rows])]


def by_gain(
  scores: Scores,
  groups: Groups,
  budget: Budget,
  candidates: Candidates,
  score: Float[np.ndarray, " N"],
) -> Selection:
  """The rows with the highest score."""
  order = by_score(candidates, score)
  gain = np.where(candidates.remaining, score, np.nan)
  return first(scores, groups, budget, candidates, order, gain=gain)


def most_rows(budget: Budget, scores: Scores) -> int:
  """The most rows that a budget can hold: how far a greedy order must reach."""
  limit = resolve(budget, scores)
  if limit.tokens is None:
    return limit.rows
  assert scores.tokens is not None, "`resolve` refuses a budget in tokens without them"
  tokens = np.sort(scores.tokens[~scores.flag("left_out")])
  return int(np.searchsorted(np.cumsum(tokens), limit.tokens, side="right"))


def first(
  scores: Scores,
  groups: Groups,
  budget: Budget,
  candidates: Candidates,
  order: Int[np.ndarray, " n"],
  gain: Float[np.ndarray, " N"] | None = None,
  target: Float[np.ndarray, " G"] | None = None,
) -> Selection:
  """The first rows of an order, forced ones before and suspects after it.

  Args:
    scores: of all rows.
    groups: of all rows.
    budget: as written.
    candidates: from `sort_out`.
    order: all remaining rows.
    gain: what the order goes by, never increasing along it; None if by nothing
      that a row has by itself.
    target: shares of the groups, for the table.
  """
  limit = resolve(budget, scores)
  forced = candidates.forced[order]
  spare = by_tie(candidates, candidates.suspect)
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
    warnings=(limit.warning, *shortage(rows, min(rows, len(order)), filling)),
  )


def by_tie(candidates: Candidates, mask) -> Int[np.ndarray, " n"]:
  """Rows of a mask in drawn order."""
  rows = np.flatnonzero(mask)
  return rows[sort_rows(candidates.tie[rows])]


def resolve(budget: Budget, scores: Scores) -> budgets.Limit:
  """The budget met with the rows that are not left out."""
  eligible = ~scores.flag("left_out")
  tokens = None if scores.tokens is None else scores.tokens[eligible]
  return budgets.resolve(budget, int(eligible.sum()), tokens, "select.budget")


def shortage(asked: int, taken: int, filling: int) -> list[str]:
  """Warns where rows ran out before the budget did."""
  texts = []
  if filling:
    texts.append(
      f"{filling:,} suspect or dropped rows are kept, because only {taken:,} others"
      f" were left for a budget of {asked:,}; a smaller budget or looser bounds"
      " (select.bound, .competence, .duplicates) avoid it."
    )
  if taken + filling < asked:
    texts.append(
      f"{taken + filling:,} rows are kept of a budget of {asked:,}: the rest are in"
      " groups whose target share is 0, or above a group's cap."
    )
  return texts
