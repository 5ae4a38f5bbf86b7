"""Decides whether a selection replaces random rows, and says so in one sentence."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

from mllm_selector_jax.pipeline.search.development import Measure

PAYS, UNCLEAR, HARMS = "pays", "unclear", "harms"


def judge(chosen: Measure, control: Measure, level: float) -> dict[str, Any]:
  """Compare a selection with random rows on the same development questions or rows.

  The selection replaces random rows only if the whole interval of the paired difference
  is above 0. So where the two are equal, it does so with a probability of about
  (1 - level) / 2.

  The interval is the normal one of a weighted mean. As in `paired_difference`, one
  question won and one lost are added, here with the mean weight and to all together,
  since a group may have very few held-out rows.

  Args:
    chosen: What the trial of the selection scored.
    control: What the trial of random rows scored.
    level: The level of the interval.

  Returns:
    The outcome (one of `PAYS`, `UNCLEAR`, `HARMS`), the two values, their difference
    with its interval, the level, and the number of questions or rows.
  """
  assert chosen.names == control.names, "both trials are measured on the same questions"
  differences, weight = chosen.score - control.score, chosen.weight
  value = float(weight @ differences)
  variance = float((weight**2 * ((differences - value) ** 2)).sum())
  variance += 2 * float((weight**2).sum()) ** 2
  half = statistics.NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance)
  low, high = max(-1.0, value - half), min(1.0, value + half)
  return {
    "outcome": PAYS if low > 0 else HARMS if high < 0 else UNCLEAR,
    "value": chosen.value,
    "random": control.value,
    "difference": value,
    "low": low,
    "high": high,
    "level": level,
    "questions": len(differences),
  }


def describe(verdict: Mapping[str, Any], own: str) -> str:
  """Say what a verdict means for the run.

  Args:
    verdict: The fields of `judge`, with "strategy" (that of the compared selection),
      "questions_are" (what was scored: held-out rows or development questions) and
      "of_full" (the FLOPs of the search, divided by those of the full tune).
    own: The strategy of the config.
  """
  name, outcome = verdict["strategy"], verdict["outcome"]
  figures = (
    f"{name} scores {verdict['value']:.3f} and random rows {verdict['random']:.3f} on"
    f" {verdict['questions']:,} {verdict['questions_are']} (difference"
    f" {verdict['difference']:+.3f}, {verdict['level']:.0%} interval"
    f" {verdict['low']:+.3f} to {verdict['high']:+.3f}), at"
    f" {verdict['of_full']:.1%} of the FLOPs of tuning on the full pool."
  )
  if outcome == PAYS and name == own:
    return f"Selecting is expected to pay here: {figures}"
  if outcome == PAYS:
    return (
      f"{name} is expected to pay here, and was better than the settings of {own}:"
      f" {figures} The main arm takes the rows of {name}."
    )
  if outcome == HARMS:
    return (
      f"Selecting is expected to harm here: {figures} The main arm takes random rows."
    )
  return (
    f"Selecting adds nothing here that these trials can show; random rows are as good:"
    f" {figures} The main arm takes random rows."
  )
