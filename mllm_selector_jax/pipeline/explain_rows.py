"""Explains why rows were kept or not, and what would have changed that."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.pool import special_counts
from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.inputs import base_model, guard
from mllm_selector_jax.inputs.lists import Reference
from mllm_selector_jax.inputs.references import list_rows
from mllm_selector_jax.pipeline import candidates
from mllm_selector_jax.pipeline.arms import at_arm
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection.bounds import RULES, find_bound
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.reasons import (
  DUPLICATE,
  MEANINGS,
  PASSED_OVER,
  RESERVED,
)
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.types import InputError

CHUNK = 8192  # rows whose embeddings are compared at once
MOST = 10  # rows that are explained if several have the same id
# The options that can decide about a row, and the value that turns each off.
OFF = {
  name: "none" if name == "bound" else getattr(SelectOptions(), name)
  for name in ("bound", *RULES, "duplicates", "most", "least")
}
_BY_REASON = {DUPLICATE: "duplicates", PASSED_OVER: "most", RESERVED: "least"}
# Reasons that come from a list of rows, and the setting that is this list.
NAMED = {"forced in": "force_in", "left out": "leave_out"}


def explain_rows(run: Run, ids: tuple[str, ...], arm: str = "main") -> list[str]:
  """Explain rows of an arm's selection in the workdir.

  Args:
    run: The run of the workdir.
    ids: Ids, `row=N` or `hash=...`; an entry may hold several, separated by commas.
    arm: Name of the arm whose selection is explained.

  Returns:
    One text for each row. If several rows have the same id, a text that says so comes
    before theirs.

  Raises:
    InputError: No id is given, no row has an id, the arm has no selection, or the
      selection was made from other scores.
  """
  if not ids:
    raise InputError("explain needs --id=ID, or several separated by commas.")
  run.begin("explain")
  arm_run, provenance = at_arm(run, arm)
  config = provenance["config"]
  eligible = candidates.read_eligible(
    arm_run, config, provenance["seed"], embeddings=True
  )
  entries = [Reference(text, inline=True) for text in ids]
  row_lists = list_rows(eligible.pool, entries, "--id")
  chosen = eligible.select(config["budget"], provenance["seed"])
  context = _Context(
    eligible, chosen, config, provenance["seed"], _open_specials(arm_run, eligible.pool)
  )
  texts, done = [], 0
  total = sum(min(len(rows), MOST) for rows in row_lists)
  with run.progress("explain", "row") as progress:
    for rows in row_lists:
      if len(rows) > 1:
        texts.append(_describe_several(eligible.pool, rows))
      for row in rows[:MOST].tolist():
        texts.append("\n".join(context.describe(row)))
        done += 1
        progress(done, total)
  return texts


def _describe_several(pool: PoolTable, rows: Int[np.ndarray, " k"]) -> str:
  numbers = ", ".join(f"{row:,}" for row in rows[:MOST].tolist())
  ids = sorted({pool.id[row] for row in rows[:MOST].tolist()})
  omitted = len(rows) - MOST
  return f"{', '.join(ids)}: {len(rows):,} rows, {numbers}" + (
    f" and {omitted:,} more, which --id=row=N explains" if omitted > 0 else ""
  )


def _open_specials(run: Run, pool: PoolTable) -> Callable[[int], list[str]]:
  """Return a function that describes the special tokens which a row's text spells.

  It gives no lines if no row of the pool spells any.
  """
  specials = guard.read_summary(run).get("specials") or {}
  if not any(specials.values()):
    return lambda row: []
  try:
    reader = base_model.open_reader(run, pool)
  except InputError:  # the base is no longer there; explain everything else
    return lambda row: []

  def describe(row: int) -> list[str]:
    tally = special_counts.SpecialTally()
    tally.add(reader.count_specials(row))
    lines = special_counts.list_lines(tally.result())
    return [f"  {label}: {counts}" for label, counts in lines]

  return describe


@dataclasses.dataclass
class _Context:
  eligible: candidates.Eligible
  chosen: Selection
  config: dict[str, Any]
  rng: int
  list_specials: Callable[[int], list[str]]

  @functools.cached_property
  def _unit_embeddings(self) -> UnitRows:
    return self.eligible.scores.unit_embeddings("explain")

  def describe(self, row: int) -> list[str]:
    pool, chosen = self.eligible.pool, self.chosen
    lines = [f"{pool.id[row]} (row {row:,}, {pool.source[row]})"]
    index = int(np.searchsorted(self.eligible.rows, row))
    if index == len(self.eligible.rows) or self.eligible.rows[index] != row:
      why = pool.reason[row] or "one of its scores is not a number"
      return [*lines, f"  not kept: set aside, {why}"]
    reason = str(chosen.reason[index])
    kept = bool(chosen.kept[index])
    lines.append(
      f"  {'kept' if kept else 'not kept'}: {reason} ({self._meaning(reason)})"
      + (f"; rank {chosen.rank[index] + 1:,} of {chosen.kept.sum():,}" if kept else "")
    )
    return [
      *lines,
      self._necessity(index),
      self._group(index),
      *self._gain(index),
      *self.list_specials(row),
      *self._changes(index, reason, kept),
      *self._neighbour(index),
    ]

  def _meaning(self, reason: str) -> str:
    # A reason that is not in MEANINGS comes from a plug-in.
    return MEANINGS.get(reason) or find_bound(self.eligible.options.bound).meaning

  def _necessity(self, index: int) -> str:
    values, scaled = self.eligible.scores.necessity, self.chosen.normalised_necessity
    higher = int((scaled > scaled[index]).sum())
    signal = self.config["signal"]
    seen = self.eligible.scores.flag("seen")[index]
    return (
      f"  necessity: {signal} {values[index]:.4g}, scaled {scaled[index]:.4f};"
      f" {higher:,} of {len(values):,} rows are above it"
      + (" (the seed model was tuned on this row)" if seen else "")
    )

  def _group(self, index: int) -> str:
    table, group = self.chosen.table, int(self.chosen.group[index])
    target = table.target[group]
    text = f"  group: {table.name[group]}, {table.size[group]:,} rows,"
    if not math.isnan(target):
      text += f" target share {target:.2%},"
    return (
      f"{text} reached {table.reached[group]:.2%} ({table.kept[group]:,} kept); mean"
      f" necessity {table.mean[group]:.3f}"
    )

  def _gain(self, index: int) -> list[str]:
    gain, threshold = self.chosen.gain[index], self.chosen.threshold
    if math.isnan(gain):
      return []
    if not math.isfinite(threshold):
      return [f"  gain: {gain:.6g}; no row was kept for its gain"]
    side = "above" if gain > threshold else "below" if gain < threshold else "at"
    return [
      f"  gain: {gain:.6g}, {side} the threshold {threshold:.6g}"
      f" ({gain - threshold:+.6g})"
    ]

  def _changes(self, index: int, reason: str, kept: bool) -> list[str]:
    lines = []
    total = int((~self.eligible.scores.flag("left_out")).sum())
    forced = int(self.eligible.scores.flag("forced_in").sum())
    forced += int((self.chosen.reason == RESERVED).sum())
    if reason not in NAMED:
      smallest = find_smallest_budget(
        lambda rows: bool(self.eligible.select(str(rows), self.rng).kept[index]),
        total,
        max(1, forced),  # a budget below these rows is refused
      )
      now = int(self.chosen.kept.sum())
      if smallest is None:
        lines.append("  would change it: no budget keeps it with these settings")
      elif kept:
        lines.append(
          f"  would change it: a budget below {smallest:,} rows (now {now:,})"
        )
      else:
        lines.append(f"  would change it: a budget of {smallest:,} rows (now {now:,})")
    if (option := find_option(reason, self.eligible.options)) is not None:
      value = OFF[option]
      without = self.eligible.select(self.config["budget"], self.rng, **{option: value})
      lines.append(
        f"  without select.{option}: {'' if without.kept[index] else 'not '}kept,"
        f" {without.reason[index]}"
      )
    if reason in NAMED:
      lines.append(f"  would change it: taking it out of select.{NAMED[reason]}")
    return lines

  def _neighbour(self, index: int) -> list[str]:
    if self.eligible.scores.embeddings is None:
      return []
    kept = np.flatnonzero(self.chosen.kept)
    neighbour = nearest(self._unit_embeddings, index, kept[kept != index])
    if neighbour is None:
      return []
    nearest_index, cosine = neighbour
    row = int(self.eligible.rows[nearest_index])
    same = self.chosen.group[nearest_index] == self.chosen.group[index]
    return [
      f"  nearest kept row: {self.eligible.pool.id[row]} (row {row:,}), cosine"
      f" {cosine:.4f}, {'the same' if same else 'another'} group"
    ]


def find_option(reason: str, options: SelectOptions) -> str | None:
  """Return the option that decides about rows for this reason; None if none does."""
  if reason == find_bound(options.bound).reason:
    return "bound"
  if reason in _BY_REASON:
    return _BY_REASON[reason]
  return next((name for name, rule in RULES.items() if rule.reason == reason), None)


def find_smallest_budget(
  is_kept: Callable[[int], bool], most: int, fewest: int = 1
) -> int | None:
  """Find the smallest budget that keeps a row, by bisection.

  Selections nest: a row that one budget keeps is also kept by every larger one.

  Args:
    is_kept: Says for a budget in rows whether the row is kept.
    most: The largest budget.
    fewest: The smallest budget to try.

  Returns:
    The budget in rows, or None if even the largest does not keep the row.
  """
  if not is_kept(most):
    return None
  low, high = fewest, most
  while low < high:
    middle = (low + high) // 2
    if is_kept(middle):
      high = middle
    else:
      low = middle + 1
  return low


def nearest(
  embeddings: UnitRows, index: int, among: Int[np.ndarray, " K"]
) -> tuple[int, float] | None:
  """Find the row whose embedding has the highest cosine with that of a row.

  Args:
    embeddings: The rows of the pool, of length 1.
    index: The row to compare with.
    among: The rows to search.

  Returns:
    The first row with the highest cosine, and the cosine; None if `among` is empty.
  """
  best = None
  row = embeddings.rows(np.array([index]))[0]
  for start in range(0, len(among), CHUNK):
    part = among[start : start + CHUNK]
    cosine = embeddings.rows(part) @ row
    top = int(cosine.argmax())
    if best is None or cosine[top] > best[1]:
      best = int(part[top]), float(cosine[top])
  return best
