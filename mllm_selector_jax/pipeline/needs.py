"""Says what a selection needs: signals, embeddings, a held-out loss, plug-ins.

All of this follows from the tables of strategies and bounds.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from mllm_selector_jax.scoring import signals
from mllm_selector_jax.selection import bounds, strategies
from mllm_selector_jax.selection.eligibility import list_rules
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.types import InputError

# A bound that needs nothing beyond the columns of every score table.
PLAIN_BOUND = next(
  name
  for name, bound in bounds.BOUNDS.items()
  if bound.reason and not (bound.signals or bound.held_out or bound.embeddings)
)


def make_options(config: dict[str, Any]) -> SelectOptions:
  """Make the options of a selection from the `select` section of the config."""
  names = {field.name for field in dataclasses.fields(SelectOptions)}
  values = {name: value for name, value in config.items() if name in names}
  values["competence"] = values.get("competence") or None
  strategies.find_strategy(values["strategy"])
  return SelectOptions(**values)


def find_held_out(options: SelectOptions) -> str:
  """Return the name of the held-out loss that a selection reads; "" for none."""
  if not strategies.find_strategy(options.strategy).bounded:
    return ""
  return bounds.find_bound(options.bound).held_out


def needs_embeddings(options: SelectOptions) -> bool:
  """Say whether a selection reads embeddings, other than through k-means clusters."""
  strategy = strategies.find_strategy(options.strategy)
  rules = list_rules(options) if strategy.bounded else []
  bounded = any(rule.embeddings for _, rule in rules)
  covers = options.within == "cover" and "within" in strategy.settings
  return strategy.embeddings or bounded or covers or options.duplicates > 0


def identify_plugins(config: dict[str, Any]) -> dict[str, str]:
  """Return a hash of each plug-in that a selection of this config depends on."""
  digests = strategies.LOOKUP.identify(config["strategy"])
  if strategies.find_strategy(config["strategy"]).bounded:
    digests |= bounds.LOOKUP.identify(config["bound"])
  return digests


def list_meanings(config: dict[str, Any]) -> dict[str, str]:
  """Return the meaning of the reason that a plug-in's bound gives.

  It is empty for the bounds of this package, whose meanings `bounds` lists.
  """
  bound = bounds.find_bound(config["bound"])
  known = not bound.reason or bound.reason in bounds.list_meanings()
  return {} if known else {bound.reason: bound.meaning}


def list_signals(config: dict[str, Any]) -> dict[str, str]:
  """Map each score-table column that a selection reads to the option that needs it."""
  options = make_options(config)
  strategy_option = f"select.strategy {options.strategy}"
  strategy = strategies.find_strategy(options.strategy)
  columns = {name: strategy_option for name in strategy.signals}
  for option, rule in list_rules(options) if strategy.bounded else ():
    for name in rule.signals:
      columns.setdefault(name, option)
  columns.setdefault(config["signal"], "select.signal")
  return columns


def check_signals(
  needed: Mapping[str, str], columns: Collection[str], scored: Collection[str]
) -> None:
  """Check that the score table has every column that a selection reads.

  Args:
    needed: The columns and their options, from `list_signals`.
    columns: The columns of the score table.
    scored: The signals in the setting `score.signals`.

  Raises:
    InputError: A column is missing, or its name is not the name of a signal.
  """
  for name, option in needed.items():
    if name in columns:
      continue
    names = signals.LOOKUP.list_names()
    if name not in names and ":" not in name:  # a colon marks a plug-in
      raise InputError(
        f"{option} is {name!r}, which is not a signal; there are {', '.join(names)},"
        f" and the score table has {', '.join(sorted(columns))}."
      )
    alternative = (
      f", or give --config.select.bound={PLAIN_BOUND}" if "bound" in option else ""
    )
    raise InputError(
      f"{option} needs the signal {name!r}, which was not scored; add it to"
      f" score.signals and run `mllm-selector score` again (it has"
      f" {', '.join(scored)}){alternative}."
    )
