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
  """Return the settings of each candidate.

  The first are those of the config, then come random rows and the strategies of
  `select.search.strategy`. The others are all combinations of the alternatives, or a
  random sample of them if there are more than `select.search.candidates`. The seed of
  the sample is `rng_seed`.

  Raises:
    InputError: See `list_fixed` and `list_products`.
  """
  fixed, products = list_fixed(cfg), list_products(cfg)
  drawn = np.random.default_rng([cfg.rng_seed, len(products)]).permutation(
    len(products)
  )
  chosen = sorted(drawn[: cfg.select.search.candidates - len(fixed)])
  return [*fixed, *(products[index] for index in chosen)]


def find_control(candidates: list[dict[str, Any]]) -> int:
  """Return the index of the candidate that takes random rows."""
  return [each["strategy"] for each in candidates].index(strategies.CONTROL)


def list_fixed(cfg: Any) -> list[dict[str, Any]]:
  """Return the candidates of every search: the config's own, random, and strategies.

  Raises:
    InputError: A number is too small, or there is nothing to compare random rows with.
  """
  section, first = cfg.select.search, _read_first(cfg)
  names = [first["strategy"], strategies.CONTROL]
  names += listing.split_names(section.strategy)
  fixed = [{**first, "strategy": name} for name in dict.fromkeys(names)]
  for name, smallest in (("candidates", 2), ("halving", 2)):
    if section[name] < smallest:
      raise InputError(
        f"select.search.{name}={section[name]}; it must be {smallest} or more"
        + (", or 0 for no search." if name == "candidates" else ".")
      )
  if section.candidates < len(fixed):
    raise InputError(
      f"select.search.candidates={section.candidates} is less than the"
      f" {len(fixed)} strategies to compare ({', '.join(dict.fromkeys(names))});"
      f" give {len(fixed)} or more."
    )
  if len(fixed) < 2:
    raise InputError(
      "select.search has nothing to compare: select.strategy is"
      f" {strategies.CONTROL!r}. Give others, as in"
      " --config.select.search.strategy=kl,stratified."
    )
  return fixed


def list_products(cfg: Any) -> list[dict[str, Any]]:
  """Return the combinations of the alternatives, without the config's own settings.

  Raises:
    InputError: A value is invalid, or does not apply to the config's strategy.
  """
  section, first = cfg.select.search, _read_first(cfg)
  choices = [_list_values(section[name], name, first[name]) for name in SETTINGS]
  varied = [name for name in SETTINGS if listing.split_names(section[name])]
  if varied and not _is_searched(strategies.find_strategy(first["strategy"])):
    searchable = [
      name for name, strategy in strategies.STRATEGIES.items() if _is_searched(strategy)
    ]
    raise InputError(
      f"select.search.{varied[0]} varies a setting of {', '.join(searchable)}, and"
      f" select.strategy is {first['strategy']!r}; leave it out, or change the"
      " strategy."
    )
  if section.tempering is not None and cfg.select.target != "tempered":
    raise InputError(
      "select.search.tempering applies only if select.target is 'tempered', and it is"
      f" {cfg.select.target!r}."
    )
  products = [
    {"strategy": first["strategy"], **dict(zip(SETTINGS, settings, strict=True))}
    for settings in itertools.product(*choices)
  ]
  return [settings for settings in products if settings != first]


def _read_first(cfg: Any) -> dict[str, Any]:
  """Return the config's own settings."""
  settings = {name: _read(name, cfg.select[name]) for name in SETTINGS}
  return {"strategy": cfg.select.strategy, **settings}


def check_search(run: Run, columns: Collection[str] | None = None) -> None:
  """Raise an InputError if a candidate would have invalid settings.

  This is called before anything is made.

  Args:
    run: The invocation.
    columns: Columns of the score table, as in `candidates.check_names`.
  """
  if run.cfg.select.search.candidates:
    for settings in [*list_fixed(run.cfg), *list_products(run.cfg)]:
      check_names(run, columns, **settings)


def _is_searched(strategy: Strategy) -> bool:
  """Say whether a strategy reads the settings that a search varies."""
  return strategy.bounded and {"kl_weight", "tempering"} <= set(strategy.settings)


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
