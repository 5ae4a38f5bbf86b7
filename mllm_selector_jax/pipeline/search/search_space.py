"""Lists the settings that a search compares, from `cfg.select.search`."""

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np

from mllm_selector_jax import listing
from mllm_selector_jax.pipeline.candidates import POOL_COLUMNS, check_names
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring.signals import SIGNALS
from mllm_selector_jax.selection import groups as grouping
from mllm_selector_jax.selection import strategies
from mllm_selector_jax.selection.strategy import Strategy
from mllm_selector_jax.types import InputError

SETTINGS = ("signal", "kl_weight", "groups", "tempering", "bound")


def list_candidates(cfg: Any) -> list[dict[str, Any]]:
  """Return the settings of each candidate; the first are those of the config.

  The others are all combinations of the alternatives, or a random sample of them if
  there are more than `select.search.candidates`. The seed of the sample is `rng_seed`.

  Raises:
    InputError: See `list_products`.
  """
  first, *alternatives = list_products(cfg)
  drawn = np.random.default_rng([cfg.rng_seed, len(alternatives)]).permutation(
    len(alternatives)
  )
  chosen = sorted(drawn[: cfg.select.search.candidates - 1])
  return [first, *(alternatives[index] for index in chosen)]


def list_products(cfg: Any) -> list[dict[str, Any]]:
  """Return all combinations of the alternatives, the config's own settings first.

  Raises:
    InputError: There are no alternatives to compare, or a value is invalid.
  """
  section = cfg.select.search
  for name, smallest in (("candidates", 2), ("steps", 1), ("halving", 2)):
    if section[name] < smallest:
      raise InputError(
        f"select.search.{name}={section[name]}; it must be {smallest} or more"
        + (", or 0 for no search." if name == "candidates" else ".")
      )
  if not _is_searched(strategies.find_strategy(cfg.select.strategy)):
    searchable = [
      name for name, strategy in strategies.STRATEGIES.items() if _is_searched(strategy)
    ]
    raise InputError(
      f"select.search compares settings of {', '.join(searchable)}, and select.strategy"
      f" is {cfg.select.strategy!r}; set select.search.candidates=0 for no search."
    )
  first = {name: _read(name, cfg.select[name]) for name in SETTINGS}
  choices = [_list_values(section[name], name, first[name]) for name in SETTINGS]
  if section.tempering is not None and cfg.select.target != "tempered":
    raise InputError(
      "select.search.tempering applies only if select.target is 'tempered', and it is"
      f" {cfg.select.target!r}."
    )
  products = [
    dict(zip(SETTINGS, settings, strict=True)) for settings in _products(choices)
  ]
  alternatives = [settings for settings in products if settings != first]
  if not alternatives:
    raise InputError(
      "select.search has nothing to compare; give alternatives, as in"
      " --config.select.search.kl_weight=0.2,0.4,1."
    )
  return [first, *alternatives]


def check_search(run: Run, columns: Collection[str] | None = None) -> None:
  """Raise an InputError if a candidate would have invalid settings.

  This is called before anything is made.

  Args:
    run: The invocation.
    columns: Columns of the score table, as in `candidates.check_names`.
  """
  if run.cfg.select.search.candidates:
    for settings in list_products(run.cfg):
      check_names(run, columns, **settings)


def _is_searched(strategy: Strategy) -> bool:
  """Say whether a strategy reads the settings that a search varies."""
  return strategy.bounded and {"kl_weight", "tempering"} <= set(strategy.settings)


def _products(choices: list[list[Any]]) -> list[tuple]:
  return list(itertools.product(*choices))


def check_alternatives(cfg: Any, score_columns: Collection[str]) -> None:
  """Check the names of signals and columns among the alternatives.

  They are checked even if there is no search.

  Args:
    cfg: The config of the run.
    score_columns: Columns of the score table.

  Raises:
    InputError: An alternative names no signal, or groups by no known column.
  """
  section, columns = cfg.select.search, {*SIGNALS, *POOL_COLUMNS, *score_columns}
  for name in listing.split_names(section.signal):
    if name not in {*SIGNALS, *score_columns}:
      raise InputError(
        f"select.search.signal names {name!r}; there are {', '.join(SIGNALS)}, and the"
        f" score table has {', '.join(sorted(score_columns))}."
      )
  for form in listing.split_names(section.groups):
    try:
      grouping.check_form(form, columns)
    except InputError as error:
      raise InputError(f"select.search.groups has {form!r}: {error}") from error


def _list_values(value: Any, name: str, first: Any) -> list[Any]:
  alternatives = listing.split_names(value)
  return list(
    dict.fromkeys([first, *(_read(name, alternative) for alternative in alternatives)])
  )


def _read(name: str, value: Any) -> Any:
  """Read an alternative as `select` reads the setting, with numbers as floats."""
  if name in ("signal", "groups"):
    return str(value)
  try:
    return float(value)
  except ValueError as error:
    if name == "bound":
      return str(value)
    raise InputError(f"select.search.{name} has {value!r}, which is no number.") from (
      error
    )
