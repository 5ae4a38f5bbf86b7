"""Says in a sentence what a comparison shows, and what too few seeds do not."""

from typing import Any

from mllm_selector_jax.comparison.comparison_plan import FULL, RANDOM, REFERENCE
from mllm_selector_jax.comparison.comparison_summary import MACRO, is_sure

FEWEST_SEEDS = 3  # of which an interval says something


def describe_verdicts(results: dict[str, Any]) -> list[str]:
  """Say how each strategy compares with random rows, in one sentence for each.

  "Better" and "worse" are used where the adjusted p-value allows a star in the tables.
  """
  strategies = [
    name
    for name in results["plan"]["strategies"]
    if name not in (RANDOM, FULL, REFERENCE)
  ]
  sentences = [_describe(results, name) for name in strategies]
  return [sentence for sentence in sentences if sentence]


def warn_of_seeds(results: dict[str, Any]) -> str:
  """Return a warning if there are fewer than `FEWEST_SEEDS` seeds, or ""."""
  seeds = min((entry["seeds"] for entry in results["table"]), default=0)
  if seeds == 1:
    return (
      "One seed shows no spread: there are no intervals and no p-values, and nothing is"
      " decided. Compare over at least three seeds (compare.seeds=0,1,2)."
    )
  if 1 < seeds < FEWEST_SEEDS:
    return (
      "Two seeds hardly show a spread: their 95 % intervals reach 12.7 standard errors"
      " to each side, where those of three seeds reach 4.3. Compare over at least three"
      " seeds (compare.seeds=0,1,2)."
    )
  return ""


def _describe(results: dict[str, Any], strategy: str) -> str:
  entries = [
    entry
    for entry in results["table"]
    if entry["part"] == MACRO and entry["strategy"] == strategy
  ]
  entries = [entry for entry in entries if entry["minus_random"]]
  if not entries:
    return ""
  seeds = sorted({entry["seeds"] for entry in entries})
  if seeds == [1]:
    parts = [f"{_points(e['minus_random'])} points at {e['budget']}" for e in entries]
    return (
      f"One seed decides nothing; {strategy} minus random rows is {_join(parts)}"
      f"{_of_full(entries)}."
    )
  sides = {
    "better than": [e for e in entries if _sign(e["minus_random"]) > 0],
    "worse than": [e for e in entries if _sign(e["minus_random"]) < 0],
    "not told apart from": [e for e in entries if not _sign(e["minus_random"])],
  }
  parts = [
    f"{words} random rows at {_join([_budget(entry) for entry in side])}"
    for words, side in sides.items()
    if side
  ]
  span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
  return f"Over {span} seeds, {strategy} is {_join(parts)}{_of_full(entries)}."


def _sign(test: dict[str, Any]) -> int:
  """Return 1 or -1 for a difference that is significant, otherwise 0."""
  if not is_sure(test):
    return 0
  return 1 if test["value"] > 0 else -1


def _budget(entry: dict[str, Any]) -> str:
  test = entry["minus_random"]
  half = ""
  if test["low"] is not None:
    half = f" ± {50 * (test['high'] - test['low']):.1f}"
  return f"{entry['budget']} ({_points(test)}{half} points)"


def _of_full(entries: list[dict[str, Any]]) -> str:
  """Return what the largest budget reaches of the full pool's accuracy, if known."""
  last = max(entries, key=lambda entry: entry["rows"])
  if last["of_full"] is None:
    return ""
  share = 100 * last["of_full"]["value"]
  return f"; at {last['budget']} it reaches {share:.1f} % of the full pool's accuracy"


def _points(test: dict[str, Any]) -> str:
  return f"{round(100 * test['value'], 1) + 0.0:+.1f}"  # avoid -0.0


def _join(parts: list[str]) -> str:
  return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
