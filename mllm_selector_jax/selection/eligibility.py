"""The input of a selection: the scored rows, and which of them may be taken."""

import dataclasses
import types
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt64

from mllm_selector_jax.selection import bounds, budget, draws, necessity
from mllm_selector_jax.selection.duplicates import find_duplicates
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.heldout_loss import Doubt
from mllm_selector_jax.selection.limits import Column, Limits, make_limits, read_amounts
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.overseer import NOBODY, Overseer
from mllm_selector_jax.selection.pairwise.unit_rows import Stacked, UnitRows
from mllm_selector_jax.selection.reasons import CODE, DUPLICATE, REASONS, RESERVED
from mllm_selector_jax.selection.shared_answers import Shared, find_shared
from mllm_selector_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class Scores:
  """The eligible rows: every array has one entry for each row.

  Attributes:
    necessity: the signal by which rows are selected, in its own units.
    key: the first 64 bits of the content hash.
    signals: other columns by name, such as accuracy (the share of supervised tokens
      that the seed model predicts right) and visual (the loss without the image minus
      the loss with it; 0 or NaN for a row without an image).
    embeddings: one vector for each row, in memory or in memory-mapped parts.
    seen: whether the seed model was tuned on the row.
    classes: the class of each row, from 0, inside which its necessity is ranked; None
      if it is ranked among all rows.
    like: whether the row is one of those whose group shares are the target, for
      target "like".
    reference: whether the row is one of the reference, for the strategy `reference`.
    reference_score: by how much others prefer each row of the reference; NaN for other
      rows. None if its rows have no order.
    tokens: the number of training tokens, for budgets in tokens.
    mflops: the FLOPs of tuning in millions, for budgets in FLOPs.
    forced_in: whether the row is kept whatever its scores; it counts against the
      budget.
    left_out: whether the row must not be kept.
    held_out: whether the row, one of those left out, is held out to compare settings.
    doubt: the loss and correctness of a model that has not seen the row, for bounds
      that need a held-out loss.
    answer: a number that is the same for rows with the same answer; None if the
      answers are not known.
    columns: the columns whose values `select.most` and `select.least` limit, by name.
    overseer: watches and keeps what takes minutes.
  """

  necessity: Float[np.ndarray, " N"]
  key: UInt64[np.ndarray, " N"]
  signals: Mapping[str, Float[np.ndarray, " N"]] = dataclasses.field(
    default_factory=dict
  )
  embeddings: Float[np.ndarray, "N D"] | Stacked | None = None
  seen: Bool[np.ndarray, " N"] | None = None
  classes: Int[np.ndarray, " N"] | None = None
  like: Bool[np.ndarray, " N"] | None = None
  reference: Bool[np.ndarray, " N"] | None = None
  reference_score: Float[np.ndarray, " N"] | None = None
  tokens: Int[np.ndarray, " N"] | None = None
  mflops: Int[np.ndarray, " N"] | None = None
  forced_in: Bool[np.ndarray, " N"] | None = None
  left_out: Bool[np.ndarray, " N"] | None = None
  held_out: Bool[np.ndarray, " N"] | None = None
  doubt: Doubt | None = None
  answer: UInt64[np.ndarray, " N"] | None = None
  columns: Mapping[str, Column] = dataclasses.field(default_factory=dict)
  overseer: Overseer = NOBODY

  def __post_init__(self):
    columns = {field.name: getattr(self, field.name) for field in FIELDS}
    for name, value in {**columns, **self.signals}.items():
      assert value is None or len(value) == len(self.key), name
    for name, column in self.columns.items():
      assert len(column.bounds) == len(self.key) + 1, name

  def cost(self, unit: str) -> Int[np.ndarray, " N"] | None:
    """Returns what each row costs in a unit of `budget`; None if it is not known."""
    return {budget.TOKENS: self.tokens, budget.FLOPS: self.mflops}.get(unit)

  def rank(self) -> Float[np.ndarray, " N"]:
    """Returns the normalised necessity; see `necessity.rank_normalise`."""
    return necessity.rank_normalise(self.necessity, self.flag("seen"), self.classes)

  def flag(self, name: str) -> Bool[np.ndarray, " N"]:
    """Returns an optional column of booleans; all false if it was not given."""
    value = getattr(self, name)
    return np.zeros(len(self.key), bool) if value is None else value.astype(bool)

  def signal(
    self, name: str, option: str, finite: bool = True
  ) -> Float[np.ndarray, " N"]:
    """Returns a signal that an option needs.

    Args:
      name: the name of the signal.
      option: the option that needs it, for the messages.
      finite: whether all values have to be finite.

    Raises:
      InputError: the signal was not scored, or a value is not finite.
    """
    if name not in self.signals:
      raise InputError(
        f"{option} needs the signal {name!r}, which the scores do not hold; add it to"
        " score.signals and run the score stage again, or choose another value."
      )
    values = self.signals[name]
    if finite and (not_finite := int((~np.isfinite(values)).sum())):
      raise InputError(
        f"{option} needs the signal {name!r}, which is not a finite number in"
        f" {not_finite:,} of {len(values):,} rows; set such rows aside first."
      )
    return values

  def unit_embeddings(self, option: str) -> UnitRows:
    """Returns the embeddings, scaled to length 1 when they are read.

    Args:
      option: the option that needs them, for the messages.

    Raises:
      InputError: there are no embeddings, or one is not finite.
    """
    if self.embeddings is None:
      raise InputError(
        f"{option} needs embeddings, which the scores do not hold; run the score stage"
        " again, or choose another value."
      )
    vectors = UnitRows(self.embeddings)
    if not_finite := int((~vectors.finite).sum()):
      raise InputError(
        f"{option} needs embeddings, which are not finite in {not_finite:,} of"
        f" {len(vectors):,} rows; run the score stage again, or choose another value."
      )
    return vectors


_OTHERS = ("signals", "doubt", "columns", "overseer")
FIELDS = [f for f in dataclasses.fields(Scores) if f.name not in _OTHERS]


class Candidates(NamedTuple):
  """The rows divided into those that may be taken and those that may not.

  Attributes:
    normalised_necessity: see `Scores.rank`.
    tie: a random number for each row; among equal rows the smallest goes first.
    forced: rows that are kept before all others, the reserved ones included.
    remaining: rows that may be taken, including the forced ones.
    suspect: rows that are kept only if the budget cannot be filled without them.
    code: for suspect and left-out rows the index of their reason in `reasons`; for
      all others that of "not drawn".
    spared: for each reason, how many groups and rows a bound did not judge.
    shared: answers that most of the rows beyond a bound have in common.
    judged: whether the bound could judge each row; None if it judges all alike.
    reasons: the texts that the codes index: `REASONS`, then those of plug-ins.
    limits: the limits on values; None if there are none.
    reserved: forced rows that are kept because `select.least` wants rows of one of
      their values; None for none.
    closed: suspect rows that may not fill the budget, since one of their values is
      full; None for none.
  """

  normalised_necessity: Float[np.ndarray, " N"]
  tie: UInt64[np.ndarray, " N"]
  forced: Bool[np.ndarray, " N"]
  remaining: Bool[np.ndarray, " N"]
  suspect: Bool[np.ndarray, " N"]
  code: Int[np.ndarray, " N"]
  spared: Mapping[str, dict[str, int]] = types.MappingProxyType({})
  shared: tuple[Shared, ...] = ()
  reasons: tuple[str, ...] = REASONS
  judged: Bool[np.ndarray, " N"] | None = None
  limits: Limits | None = None
  reserved: Bool[np.ndarray, " N"] | None = None
  closed: Bool[np.ndarray, " N"] | None = None

  def fills(self) -> Bool[np.ndarray, " N"]:
    """Returns the suspect rows that may fill the budget."""
    return self.suspect if self.closed is None else self.suspect & ~self.closed

  def mark_forced(self, code: UInt8[np.ndarray, " N"]) -> None:
    """Writes the code of the reason of each forced row into `code`, in place."""
    code[self.forced] = CODE["forced in"]
    if self.reserved is not None:
      code[self.reserved] = CODE[RESERVED]


def find_limits(scores: Scores, options: SelectOptions) -> Limits | None:
  """Returns the limits that the options set on the values of the rows' columns."""
  most = read_amounts(options.most, "select.most")
  least = read_amounts(options.least, "select.least")
  return make_limits(scores.columns, most, least, scores.flag("left_out"))


def list_rules(options: SelectOptions) -> list[tuple[str, bounds.Bound]]:
  """Returns the rules that mark suspects, in order, each after its option's name."""
  bound = bounds.find_bound(options.bound)
  rules = [
    (f"select.{name}", rule)
    for name, rule in bounds.RULES.items()
    # If the bound has the same reason, it reads this option itself.
    if getattr(options, name) and rule.reason != bound.reason
  ]
  return [*rules, (f"select.bound {options.bound}", bound)]


def sort_out(
  scores: Scores, groups: Groups, rng: int, options: SelectOptions, bounded: bool
) -> Candidates:
  """Ranks all scored rows, then marks suspect rows group by group.

  Args:
    scores: the scores of the eligible rows.
    groups: the groups of the same rows.
    rng: seed of the draws.
    options: which bounds apply.
    bounded: whether the strategy leaves suspect rows out at all.

  Raises:
    InputError: a score is not finite, a bound reads a signal that was not scored, a
      row is both forced in and left out, or there is no row.
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
  ranks = scores.rank()
  code = np.full(count, CODE["not drawn"], np.uint8)
  tie = draws.draw(rng, scores.key, options.strategy)
  spared: dict[str, dict[str, int]] = {}
  shared: tuple[Shared, ...] = ()
  reasons, judged = REASONS, None
  if bounded:
    spared, reasons, judged = _mark_suspects(code, scores, ranks, groups.index, options)
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
      scores.overseer,
    )
    code[copies] = CODE[DUPLICATE]
  suspect = code > CODE["left out"]
  remaining = ~suspect & ~left_out
  return Candidates(
    *(ranks, tie, forced, remaining, suspect, code, spared, shared, reasons, judged),
    limits=find_limits(scores, options),
  )


def _mark_suspects(
  code: UInt8[np.ndarray, " N"],
  scores: Scores,
  ranks: Float[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  options: SelectOptions,
) -> tuple[dict[str, dict[str, int]], tuple[str, ...], np.ndarray | None]:
  """Writes the code of each suspect row's reason into `code`, in place.

  Returns:
    What the rules spared, the reasons that the codes index, and which rows the bound
    could judge.
  """
  spared: dict[str, dict[str, int]] = {}
  reasons, judged = REASONS, None
  for option, rule in list_rules(options):
    if rule.held_out and scores.doubt is None:
      raise InputError(
        f"{option} needs a held-out loss, which the scores do not hold; run"
        " `mllm-selector select`, or choose another value."
      )
    suspects = rule.find(
      bounds.Inputs(
        normalised_necessity=ranks,
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
    if suspects.suspect.any():
      reasons = _with_reason(reasons, rule.reason)
      code[suspects.suspect] = reasons.index(rule.reason)
    spared |= suspects.spared
    judged = suspects.judged  # the bound is the last rule
  return spared, reasons, judged


def _with_reason(reasons: tuple[str, ...], reason: str) -> tuple[str, ...]:
  return reasons if reason in reasons else (*reasons, reason)


def drop(
  candidates: Candidates, mask: Bool[np.ndarray, " N"], reason: str
) -> Candidates:
  """Makes rows suspect that a strategy's own rule drops, except the forced ones.

  Args:
    candidates: from `sort_out`.
    mask: the rows to drop.
    reason: why they are dropped, as `selection.parquet` will say it.
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
