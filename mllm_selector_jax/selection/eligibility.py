"""What comes into a selection: scored rows, and which of them may be taken."""

import dataclasses
import types
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt64

from mllm_selector_jax.selection import bounds, draws, necessity
from mllm_selector_jax.selection import budget as budgets
from mllm_selector_jax.selection.duplicates import find_duplicates
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.heldout_loss import Doubt
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.reasons import CODE, DUPLICATE, REASONS
from mllm_selector_jax.selection.shared_answers import Shared, find_shared
from mllm_selector_jax.types import InputError

STEP = 1 << 16  # embeddings scaled at once


@dataclasses.dataclass(frozen=True)
class Scores:
  """The eligible rows, one entry each.

  Attributes:
    necessity: a signal in its own units.
    key: the first 64 bits of the content hash.
    signals: other columns by name, such as accuracy (share of supervised tokens
      that the seed model gets right) and visual (loss without the image less
      loss with it; 0 or NaN without an image).
    embeddings: a vector a row.
    seen: the seed model was tuned on the row.
    like: rows whose groups are the target, for target "like".
    tokens: training tokens, for budgets in tokens.
    forced_in: kept whatever the scores say; counts against the budget.
    left_out: never kept.
    held_out: those of them that are kept apart to compare settings on.
    doubt: what a model that has not seen the row says, for bounds that need a
      held-out loss.
    answer: equal where the rows' answers are; None where they are not known.
  """

  necessity: Float[np.ndarray, " N"]
  key: UInt64[np.ndarray, " N"]
  signals: Mapping[str, Float[np.ndarray, " N"]] = dataclasses.field(
    default_factory=dict
  )
  embeddings: Float[np.ndarray, "N D"] | None = None
  seen: Bool[np.ndarray, " N"] | None = None
  like: Bool[np.ndarray, " N"] | None = None
  tokens: Int[np.ndarray, " N"] | None = None
  forced_in: Bool[np.ndarray, " N"] | None = None
  left_out: Bool[np.ndarray, " N"] | None = None
  held_out: Bool[np.ndarray, " N"] | None = None
  doubt: Doubt | None = None
  answer: UInt64[np.ndarray, " N"] | None = None

  def __post_init__(self):
    columns = {field.name: getattr(self, field.name) for field in FIELDS}
    for name, value in {**columns, **self.signals}.items():
      assert value is None or len(value) == len(self.key), name

  def flag(self, name: str) -> Bool[np.ndarray, " N"]:
    """An optional column of booleans; all false where it is not given."""
    value = getattr(self, name)
    return np.zeros(len(self.key), bool) if value is None else value.astype(bool)

  def signal(
    self, name: str, option: str, finite: bool = True
  ) -> Float[np.ndarray, " N"]:
    """A signal that an option needs.

    Raises:
      InputError: it was not scored, or is not `finite` somewhere.
    """
    if name not in self.signals:
      raise InputError(
        f"{option} needs the signal {name!r}, which the scores do not hold; add it to"
        " score.signals and run the score stage again, or choose otherwise."
      )
    values = self.signals[name]
    if finite and (bad := int((~np.isfinite(values)).sum())):
      raise InputError(
        f"{option} needs the signal {name!r}, which is not a finite number in {bad:,}"
        f" of {len(values):,} rows; set such rows aside first."
      )
    return values

  def unit_embeddings(self, option: str) -> Float[np.ndarray, "N D"]:
    """Embeddings of length 1, float32.

    Raises:
      InputError: there are none, or one is not finite.
    """
    if self.embeddings is None:
      raise InputError(
        f"{option} needs embeddings, which the scores do not hold; run the score stage"
        " again, or choose otherwise."
      )
    values = np.array(self.embeddings, np.float32)
    bad = 0
    for start in range(0, len(values), STEP):  # all at once takes thrice the memory
      part = values[start : start + STEP]
      infinite = ~np.isfinite(part).all(1)
      bad += int(infinite.sum())
      part[infinite] = 0
      length = np.sqrt(np.sum(np.square(part, dtype=np.float64), 1, keepdims=True))
      part[:] = part / np.maximum(length, 1e-30)
    if bad:
      raise InputError(
        f"{option} needs embeddings, which are not finite in {bad:,} of"
        f" {len(values):,} rows; score again, or choose otherwise."
      )
    return values


FIELDS = [f for f in dataclasses.fields(Scores) if f.name not in ("signals", "doubt")]


class Candidates(NamedTuple):
  """Rows sorted into those that may be taken and those that may not.

  Attributes:
    necessity: rank-normalised.
    tie: a draw a row; the smaller goes first.
    forced: rows to keep first.
    remaining: rows that may be taken, the forced ones among them.
    suspect: rows that fill the budget only when no other is left.
    code: the reason of suspect and left-out rows, by `CODE`; otherwise that of
      "not drawn".
    spared: by reason the groups and rows that a bound left alone.
    shared: answers that most of the rows beyond a bound have.
    reasons: what the codes stand for; `REASONS` and those of plug-ins.
  """

  necessity: Float[np.ndarray, " N"]
  tie: UInt64[np.ndarray, " N"]
  forced: Bool[np.ndarray, " N"]
  remaining: Bool[np.ndarray, " N"]
  suspect: Bool[np.ndarray, " N"]
  code: Int[np.ndarray, " N"]
  spared: Mapping[str, dict[str, int]] = types.MappingProxyType({})
  shared: tuple[Shared, ...] = ()
  reasons: tuple[str, ...] = REASONS


def list_rules(options: SelectOptions) -> list[tuple[str, bounds.Bound]]:
  """The rules that mark suspects, in their order, each with the option it is of."""
  bound = bounds.find_bound(options.bound)
  rules = [
    (f"select.{name}", rule)
    for name, rule in bounds.RULES.items()
    # A bound for the same reason reads the option itself.
    if getattr(options, name) and rule.reason != bound.reason
  ]
  return [*rules, (f"select.bound {options.bound}", bound)]


def sort_out(
  scores: Scores, groups: Groups, rng: int, options: SelectOptions, bounded: bool
) -> Candidates:
  """Ranks over all scored rows, then bounds inside the groups.

  Args:
    scores: of the eligible rows.
    groups: of the same rows.
    rng: seed of the draws.
    options: which bounds apply.
    bounded: whether the strategy bounds suspect rows at all.

  Raises:
    InputError: scores that are not finite, a bound whose signal is not there, a
      row both forced in and left out, or no row at all.
  """
  count = len(scores.key)
  if count == 0:
    raise InputError("No scored row is eligible; there is nothing to select from.")
  if len(groups.index) != count:
    raise InputError(
      f"{len(groups.index):,} rows have a group and {count:,} have a score; score and"
      " group the same rows."
    )
  forced, left_out = scores.flag("forced_in"), scores.flag("left_out")
  both = np.flatnonzero(forced & left_out)
  if len(both):
    raise InputError(
      f"{len(both)} rows are both forced in and left out (the first is line {both[0]}"
      " of the scores); name each in one list."
    )
  ranks = necessity.rank_normalise(scores.necessity, scores.flag("seen"))
  code = np.full(count, CODE["not drawn"], np.uint8)
  tie = draws.draw(rng, scores.key, options.strategy)
  spared: dict[str, dict[str, int]] = {}
  shared: tuple[Shared, ...] = ()
  reasons = REASONS
  if bounded:
    spared, reasons = _mark_suspects(code, scores, ranks, groups.index, options)
    if scores.answer is not None:
      beyond = code != CODE["not drawn"]
      shared = find_shared(beyond, groups.index, scores.answer)
  code[forced] = CODE["not drawn"]
  code[left_out] = CODE["left out"]
  code[scores.flag("held_out")] = CODE["held out for development"]
  if bounded and options.duplicates:
    copies = find_duplicates(
      scores.unit_embeddings("select.duplicates"),
      np.flatnonzero(code == CODE["not drawn"]),
      groups.index,
      tie,
      forced,
      options.duplicates,
    )
    code[copies] = CODE[DUPLICATE]
  suspect = code > CODE["left out"]
  remaining = ~suspect & ~left_out
  return Candidates(
    ranks, tie, forced, remaining, suspect, code, spared, shared, reasons
  )


def _mark_suspects(
  code: UInt8[np.ndarray, " N"],
  scores: Scores,
  ranks: Float[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  options: SelectOptions,
) -> tuple[dict[str, dict[str, int]], tuple[str, ...]]:
  """Marks what each rule finds; gives what was spared, and what codes stand for."""
  spared: dict[str, dict[str, int]] = {}
  reasons = REASONS
  for option, rule in list_rules(options):
    if rule.held_out and scores.doubt is None:
      raise InputError(
        f"{option} needs a held-out loss, which the scores do not hold; run"
        " `mllm-selector select`, or choose otherwise."
      )
    found = rule.find(
      bounds.Inputs(
        necessity=ranks,
        groups=groups,
        signals={
          name: scores.signal(name, option, rule.finite) for name in rule.signals
        },
        seen=scores.flag("seen"),
        answers=scores.answer if rule.by_skill else None,
        doubt=scores.doubt if rule.held_out else None,
        embeddings=scores.unit_embeddings(option) if rule.embeddings else None,
        competence=options.competence or 0.0,
      )
    )
    if found.suspect.any():
      reasons = _with_reason(reasons, rule.reason)
      code[found.suspect] = reasons.index(rule.reason)
    spared |= found.spared
  return spared, reasons


def _with_reason(reasons: tuple[str, ...], reason: str) -> tuple[str, ...]:
  return reasons if reason in reasons else (*reasons, reason)


def drop(
  candidates: Candidates, mask: Bool[np.ndarray, " N"], reason: str
) -> Candidates:
  """Rows that a strategy's own rule takes out, but for the forced ones.

  Args:
    candidates: from `sort_out`.
    mask: the rows.
    reason: why, as `selection.parquet` is to say it.
  """
  mask = mask & candidates.remaining & ~candidates.forced
  reasons, code = _with_reason(candidates.reasons, reason), candidates.code.copy()
  code[mask] = reasons.index(reason)
  return candidates._replace(
    remaining=candidates.remaining & ~mask,
    suspect=candidates.suspect | mask,
    code=code,
    reasons=reasons,
  )


def fit(limit: budgets.Limit, scores: Scores, candidates: Candidates, choose) -> int:
  """How many rows the budget holds.

  Args:
    limit: the resolved budget.
    scores: token counts and forced rows.
    candidates: from `sort_out`.
    choose: from a number of rows to the kept ones as a mask; a larger number's
      rows hold a smaller one's.

  Returns:
    The number of rows; for tokens the largest whose rows fit.

  Raises:
    InputError: the forced rows alone are above the budget, or no row fits.
  """
  forced = int(candidates.forced.sum())
  if limit.tokens is None:
    if forced > limit.rows:
      raise InputError(
        f"{forced:,} rows are forced in, above the budget of {limit.rows:,}; raise the"
        " budget or force fewer."
      )
    return limit.rows
  assert scores.tokens is not None, "a limit in tokens was resolved from them"
  if forced and int(scores.tokens[candidates.forced].sum()) > limit.tokens:
    raise InputError(
      f"The {forced:,} rows forced in have"
      f" {int(scores.tokens[candidates.forced].sum()):,} tokens, above the budget of"
      f" {limit.tokens:,}; raise the budget or force fewer."
    )
  low, high = max(forced, 0), limit.rows
  while low < high:
    middle = (low + high + 1) // 2
    if int(scores.tokens[choose(middle)].sum()) <= limit.tokens:
      low = middle
    else:
      high = middle - 1
  if low < 1:
    raise InputError(
      f"The budget of {limit.tokens:,} tokens leaves no row: the first one chosen has"
      " more; raise the budget."
    )
  return low
