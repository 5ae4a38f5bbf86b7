"""Passes over rows whose values are full, and reserves those that a value needs."""

from typing import Any

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.selection.eligibility import Candidates
from mllm_selector_jax.selection.limits import NO_LIMIT, Limits, Room
from mllm_selector_jax.selection.reasons import CODE, PASSED_OVER
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.sorting import sort_rows
from mllm_selector_jax.types import InputError

SHOWN = 20  # values that a summary names
# The reasons of rows that a strategy could have kept.
FREE = ("not drawn", "below threshold", "tied with the threshold", "target share 0")


def limit_rows(
  candidates: Candidates, order: Int[np.ndarray, " n"]
) -> tuple[Candidates, Int[np.ndarray, " m"]]:
  """Goes through rows in the order in which a strategy takes them.

  Forced rows come first. Then, for every value that needs rows, the first ones that
  have it are reserved. Of the others, a row is passed over if one of its values has
  given as many rows as it may. What is passed over does not depend on the budget.

  Args:
    candidates: from `eligibility.sort_out`.
    order: all remaining rows.

  Returns:
    The candidates, of which only the rows that were taken remain, and the reserved ones
    are forced; and the order of the rows that remain, forced ones first. Both as they
    were if there are no limits.

  Raises:
    InputError: more rows of a value are forced in than it may give.
  """
  limits = candidates.limits
  if limits is None or not len(limits.most):
    return candidates, order
  forced = candidates.forced[order]
  first, others = order[forced], order[~forced]
  room = _open(candidates, limits)
  needed = room.admit(others, wanted=True)
  reserved = others[needed]
  others = others[~needed]
  others = others[room.admit(others)]
  candidates = _reserve(candidates, reserved)
  remaining = np.zeros(len(candidates.tie), bool)
  remaining[np.concatenate([first, reserved, others])] = True
  code = candidates.code.copy()
  code[candidates.remaining & ~remaining] = CODE[PASSED_OVER]
  spare = np.flatnonzero(candidates.suspect)
  spare = spare[sort_rows(candidates.tie[spare])]
  closed = np.zeros(len(remaining), bool)
  closed[spare[~room.admit(spare)]] = True
  limited = candidates._replace(remaining=remaining, code=code, closed=closed)
  return limited, np.concatenate([first, reserved, others])


def open_room(candidates: Candidates) -> tuple[Candidates, Room | None]:
  """Prepares a greedy choice, whose order is not known before it is made.

  Rows that a value needs are reserved in drawn order.

  Returns:
    The candidates, of which the reserved rows are forced; and the room for rows, of
    which none is taken yet, or None if there are no limits.
  """
  limits = candidates.limits
  if limits is None:
    return candidates, None
  rows = np.flatnonzero(candidates.remaining & ~candidates.forced)
  rows = rows[sort_rows(candidates.tie[rows])]
  room = _open(candidates, limits)
  return _reserve(candidates, rows[room.admit(rows, wanted=True)]), Room(limits)


def _open(candidates: Candidates, limits: Limits) -> Room:
  """Returns the room beside the forced rows."""
  room = Room(limits)
  room.add(np.flatnonzero(candidates.forced))
  over = np.flatnonzero(room.count > limits.most)
  if len(over):
    value = int(over[0])
    raise InputError(
      f"{room.count[value]:,} rows of {limits.describe(value)} are forced in, and"
      f" select.most allows {limits.most[value]:,}; force fewer or raise it."
    )
  return room


def _reserve(candidates: Candidates, rows: Int[np.ndarray, " k"]) -> Candidates:
  mask = np.zeros(len(candidates.tie), bool)
  mask[rows] = True
  before = candidates.reserved
  return candidates._replace(
    forced=candidates.forced | mask,
    reserved=mask if before is None else before | mask,
  )


def judge_limits(limits: Limits, chosen: Selection, strategy: str) -> Selection:
  """Adds to a selection how it keeps to limits, with warnings where it could not.

  Raises:
    InputError: it keeps more rows of a value than allowed, or fewer than it could.
  """
  kept = limits.count(np.flatnonzero(chosen.kept))
  _refuse(limits, kept, np.flatnonzero(kept > limits.most), "more", strategy)
  short = np.flatnonzero(kept < limits.least)
  passed = limits.count(np.flatnonzero(chosen.reason == PASSED_OVER))
  suspect = limits.size - kept - passed
  free = limits.count(np.flatnonzero(np.isin(chosen.reason.astype(str), FREE)))
  _refuse(limits, kept, short[free[short] > 0], "fewer", strategy)
  unmet = []
  for value in short.tolist():
    if kept[value] == limits.size[value]:
      why = "it has no other rows"
    elif passed[value]:
      why = f"select.most passes over {passed[value]:,} others"
    else:
      why = f"the other {suspect[value]:,} are suspect or dropped"
    unmet.append(
      {
        "column": limits.columns[limits.column[value]],
        "value": limits.names[value],
        "kept": int(kept[value]),
        "least": int(limits.least[value]),
        "why": why,
      }
    )
  unmet.sort(key=lambda one: (one["column"], one["value"]))
  texts = [
    f"{one['column']} {one['value']!r} ({one['kept']:,} of {one['least']:,}:"
    f" {one['why']})"
    for one in unmet[:3]
  ]
  warning = (
    f"select.least: {len(unmet):,} values get fewer rows: {', '.join(texts)}"
    + (", ..." if len(unmet) > len(texts) else ".")
  )
  report: dict[str, Any] = {
    "passed_over": int(np.count_nonzero(chosen.reason == PASSED_OVER)),
    "full": _tally(limits, (kept == limits.most) & (limits.most < NO_LIMIT)),
    "unmet": _tally(limits, kept < limits.least),
    "unmet_values": unmet[:SHOWN],
  }
  warnings = (*chosen.warnings, warning) if unmet else chosen.warnings
  return chosen._replace(limits=report, warnings=warnings)


def _tally(limits: Limits, values) -> dict[str, int]:
  """Returns how many of some values are in each column."""
  counts = np.bincount(limits.column[values], minlength=len(limits.columns))
  return dict(zip(limits.columns, counts.tolist(), strict=True))


def _refuse(limits, kept, values, word, strategy) -> None:
  if not len(values):
    return
  value = int(values[0])
  wanted = (
    f"select.most allows ({limits.most[value]:,})"
    if word == "more"
    else f"select.least wants ({limits.least[value]:,})"
  )
  raise InputError(
    f"select.strategy {strategy} keeps {kept[value]:,} rows of"
    f" {limits.describe(value)}, {word} than {wanted}; a strategy that orders rows by"
    " `ordered.by_gain` or `ordered.first` keeps to the limits."
  )
