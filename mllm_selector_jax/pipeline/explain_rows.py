"""Says why rows were kept or not, and what would have changed it."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

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
from mllm_selector_jax.selection.reasons import DUPLICATE, MEANINGS
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.types import InputError

CHUNK = 8192  # rows whose embeddings are compared at once
MOST = 10  # rows of one id that are explained
# The options that make rows suspect, and what turns each off.
OFF = {
  name: "none" if name == "bound" else getattr(SelectOptions(), name)
  for name in ("bound", *RULES, "duplicates")
}
# The option that names the rows of a reason.
NAMED = {"forced in": "force_in", "left out": "leave_out"}


def explain_rows(run: Run, ids: tuple[str, ...], arm: str = "main") -> list[str]:
  """One text a row, about the arm's selection as it stands in the workdir.

  Before the rows of an id that several have stands a text that says so.

  Args:
    run: of the workdir.
    ids: each an id, `row=N` or `hash=...`, or several with commas.
    arm: whose selection.

  Raises:
    InputError: no id, an id that no row has, or a selection that is not there or
      was made from other scores.
  """
  if not ids:
    raise InputError("explain needs --id=ID, or several separated by commas.")
  run.begin("explain")
  place, made = at_arm(run, arm)
  config = made["config"]
  eligible = candidates.read_eligible(place, config, made["seed"], embeddings=True)
  entries = [Reference(each, inline=True) for each in ids]
  found = list_rows(eligible.pool, entries, "--id")
  chosen = eligible.select(config["budget"], made["seed"])
  context = _Context(
    eligible, chosen, config, made["seed"], _open_specials(place, eligible.pool)
  )
  texts, done = [], 0
  total = sum(min(len(rows), MOST) for rows in found)
  with run.progress("explain", "row") as progress:
    for rows in found:
      if len(rows) > 1:
        texts.append(_tell_several(eligible.pool, rows))
      for row in rows[:MOST].tolist():
        texts.append("\n".join(context.describe(row)))
        done += 1
        progress(done, total)
  return texts


def _tell_several(pool: PoolTable, rows: Int[np.ndarray, " k"]) -> str:
  named = ", ".join(f"{row:,}" for row in rows[:MOST].tolist())
  names = sorted({pool.id[row] for row in rows[:MOST].tolist()})
  more = len(rows) - MOST
  return f"{', '.join(names)}: {len(rows):,} rows, {named}" + (
    f" and {more:,} more, which --id=row=N explains" if more > 0 else ""
  )


def _open_specials(run: Run, pool: PoolTable) -> Callable[[int], list[str]]:
  """Tells which special tokens a row's turns spell, in a pool where any does."""
  found = guard.read_summary(run).get("specials") or {}
  if not any(found.values()):
    return lambda row: []
  try:
    reader = base_model.open_reader(run, pool)
  except InputError:  # the base has moved; all else is told without it
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
  def _unit_embeddings(self) -> Float[np.ndarray, "N D"]:
    return self.eligible.scores.unit_embeddings("explain")

  def describe(self, row: int) -> list[str]:
    pool, chosen = self.eligible.pool, self.chosen
    lines = [f"{pool.id[row]} (row {row:,}, {pool.source[row]})"]
    place = int(np.searchsorted(self.eligible.rows, row))
    if place == len(self.eligible.rows) or self.eligible.rows[place] != row:
      why = pool.reason[row] or "a score of it is not a number"
      return [*lines, f"  not kept: set aside, {why}"]
    reason = str(chosen.reason[place])
    kept = bool(chosen.kept[place])
    lines.append(
      f"  {'kept' if kept else 'not kept'}: {reason} ({self._meaning(reason)})"
      + (f"; rank {chosen.rank[place] + 1:,} of {chosen.kept.sum():,}" if kept else "")
    )
    return [
      *lines,
      self._necessity(place),
      self._group(place),
      *self._gain(place),
      *self.list_specials(row),
      *self._changes(place, reason, kept),
      *self._neighbour(place),
    ]

  def _meaning(self, reason: str) -> str:
    # Reasons that are not in the table are a plug-in's.
    return MEANINGS.get(reason) or find_bound(self.eligible.options.bound).meaning

  def _necessity(self, place: int) -> str:
    values, scaled = self.eligible.scores.necessity, self.chosen.normalised_necessity
    higher = int((scaled > scaled[place]).sum())
    signal = self.config["signal"]
    seen = self.eligible.scores.flag("seen")[place]
    return (
      f"  necessity: {signal} {values[place]:.4g}, scaled {scaled[place]:.4f};"
      f" {higher:,} of {len(values):,} rows are above it"
      + (" (the seed model was tuned on this row)" if seen else "")
    )

  def _group(self, place: int) -> str:
    table, group = self.chosen.table, int(self.chosen.group[place])
    target = table.target[group]
    text = f"  group: {table.name[group]}, {table.size[group]:,} rows,"
    if not math.isnan(target):
      text += f" target share {target:.2%},"
    return (
      f"{text} reached {table.reached[group]:.2%} ({table.kept[group]:,} kept); mean"
      f" necessity {table.mean[group]:.3f}"
    )

  def _gain(self, place: int) -> list[str]:
    gain, threshold = self.chosen.gain[place], self.chosen.threshold
    if math.isnan(gain):
      return []
    if not math.isfinite(threshold):
      return [f"  gain: {gain:.6g}; no row was kept for its gain"]
    side = "above" if gain > threshold else "below" if gain < threshold else "at"
    return [
      f"  gain: {gain:.6g}, {side} the threshold {threshold:.6g}"
      f" ({gain - threshold:+.6g})"
    ]

  def _changes(self, place: int, reason: str, kept: bool) -> list[str]:
    lines = []
    total = int((~self.eligible.scores.flag("left_out")).sum())
    forced = int(self.eligible.scores.flag("forced_in").sum())
    if reason not in NAMED:
      least = find_smallest(
        lambda rows: bool(self.eligible.select(str(rows), self.rng).kept[place]),
        total,
        max(1, forced),  # a smaller budget is refused
      )
      now = int(self.chosen.kept.sum())
      if least is None:
        lines.append("  would change it: no budget keeps it with these settings")
      elif kept:
        lines.append(f"  would change it: a budget below {least:,} rows (now {now:,})")
      else:
        lines.append(f"  would change it: a budget of {least:,} rows (now {now:,})")
    if (option := find_option(reason, self.eligible.options)) is not None:
      off = OFF[option]
      other = self.eligible.select(self.config["budget"], self.rng, **{option: off})
      lines.append(
        f"  without select.{option}: {'' if other.kept[place] else 'not '}kept,"
        f" {other.reason[place]}"
      )
    if reason in NAMED:
      lines.append(f"  would change it: taking it out of select.{NAMED[reason]}")
    return lines

  def _neighbour(self, place: int) -> list[str]:
    if self.eligible.scores.embeddings is None:
      return []
    kept = np.flatnonzero(self.chosen.kept)
    found = nearest(self._unit_embeddings, place, kept[kept != place])
    if found is None:
      return []
    other, cosine = found
    row = int(self.eligible.rows[other])
    same = self.chosen.group[other] == self.chosen.group[place]
    return [
      f"  nearest kept row: {self.eligible.pool.id[row]} (row {row:,}), cosine"
      f" {cosine:.4f}, {'the same' if same else 'another'} group"
    ]


def find_option(reason: str, options: SelectOptions) -> str | None:
  """The option that makes a row suspect for this reason; None for other reasons."""
  if reason == find_bound(options.bound).reason:
    return "bound"
  if reason == DUPLICATE:
    return "duplicates"
  return next((name for name, rule in RULES.items() if rule.reason == reason), None)


def find_smallest(
  is_kept: Callable[[int], bool], most: int, fewest: int = 1
) -> int | None:
  """The smallest budget in rows that keeps a row; budgets nest. None if none does."""
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
  embeddings: Float[np.ndarray, "N D"], place: int, among: Int[np.ndarray, " K"]
) -> tuple[int, float] | None:
  """The row with the highest cosine, the first of equals, and that cosine."""
  best = None
  for start in range(0, len(among), CHUNK):
    part = among[start : start + CHUNK]
    cosine = embeddings[part] @ embeddings[place]
    top = int(cosine.argmax())
    if best is None or cosine[top] > best[1]:
      best = int(part[top]), float(cosine[top])
  return best
