"""What a selection reads of the scores: signals, embeddings, a held-out loss, plug-ins.

All of it follows from the tables of strategies and bounds.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from mllm_selector_jax.scoring import signals
from mllm_selector_jax.selection import bounds, strategies
from mllm_selector_jax.selection.eligibility import list_rules
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.types import InputError

# A bound that any score table will do for.
PLAIN_BOUND = next(
  name
  for name, bound in bounds.BOUNDS.items()
  if bound.reason and not (bound.signals or bound.held_out or bound.embeddings)
)


def make_options(config: dict[str, Any]) -> SelectOptions:
  """The options of a selection from the config's section."""
  names = {field.name for field in dataclasses.fields(SelectOptions)}
  given = {name: value for name, value in config.items() if name in names}
  given["competence"] = given["competence"] or None
  strategies.find_strategy(given["strategy"])
  return SelectOptions(**given)


def find_held_out(options: SelectOptions) -> str:
  """The held-out loss that a selection reads, by its maker's name; "" for none."""
  if not strategies.find_strategy(options.strategy).bounded:
    return ""
  return bounds.find_bound(options.bound).held_out


def needs_embeddings(options: SelectOptions) -> bool:
  """Whether a selection compares embeddings, clusters of k-means aside."""
  strategy = strategies.find_strategy(options.strategy)
  rules = list_rules(options) if strategy.bounded else []
  bounded = any(rule.embeddings for _, rule in rules)
  return strategy.embeddings or bounded or options.duplicates > 0


def identify_plugins(config: dict[str, Any]) -> dict[str, str]:
  """A hash of each plug-in that a selection of this config follows from."""
  digests = strategies.LOOKUP.identify(config["strategy"])
  if strategies.find_strategy(config["strategy"]).bounded:
    digests |= bounds.LOOKUP.identify(config["bound"])
  return digests


def list_meanings(config: dict[str, Any]) -> dict[str, str]:
  """What the reasons of a plug-in's bound mean; those of the tables are known."""
  bound = bounds.find_bound(config["bound"])
  known = not bound.reason or bound.reason in bounds.list_meanings()
  return {} if known else {bound.reason: bound.meaning}


def list_signals(config: dict[str, Any]) -> dict[str, str]:
  """The columns of the score table that a selection reads, and for which option."""
  options = make_options(config)
  own = f"select.strategy {options.strategy}"
  strategy = strategies.find_strategy(options.strategy)
  wanted = {name: own for name in strategy.signals}
  for option, rule in list_rules(options) if strategy.bounded else ():
    for name in rule.signals:
      wanted.setdefault(name, option)
  wanted.setdefault(config["signal"], "select.signal")
  return wanted


def check_signals(
  wanted: Mapping[str, str], there: Collection[str], asked: Collection[str]
) -> None:
  """Refuses a selection that reads a column which is not there.

  Args:
    wanted: from `list_signals`.
    there: columns of the score table.
    asked: the setting score.signals.

  Raises:
    InputError: a column that is missing, or that is no signal at all.
  """
  for name, option in wanted.items():
    if name in there:
      continue
    known = signals.LOOKUP.list_names()
    if name not in known and ":" not in name:  # which a plug-in's may have
      raise InputError(
        f"{option} is {name!r}, which is no signal; there are {', '.join(known)}, and"
        f" the score table has {', '.join(sorted(there))}."
      )
    other = (
      f", or give --config.select.bound={PLAIN_BOUND}" if "bound" in option else ""
    )
    raise InputError(
      f"{option} needs the signal {name!r}, which was not scored; add it to"
      f" score.signals and run `mllm-selector score` again (it has"
      f" {', '.join(asked)}){other if 'bound' in option else ''}."
    )
