"""Which settings a search compares, read from cfg.select.search."""

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
  """Settings by candidate: the config's own first, then others as drawn.

  All products of the alternatives, or `candidates` of them drawn by the rng seed.

  Raises:
    InputError: as `list_products`.
  """
  first, *others = list_products(cfg)
  drawn = np.random.default_rng([cfg.rng_seed, len(others)]).permutation(len(others))
  chosen = sorted(drawn[: cfg.select.search.candidates - 1])
  return [first, *(others[place] for place in chosen)]


def list_products(cfg: Any) -> list[dict[str, Any]]:
  """All products of the alternatives, the config's own settings first.

  Raises:
    InputError: no alternative to compare, or a number that is none.
  """
  own = cfg.select.search
  for name, least in (("candidates", 2), ("steps", 1), ("halving", 2)):
    if own[name] < least:
      raise InputError(
        f"select.search.{name}={own[name]}; it must be {least} or more"
        + (", or 0 for no search." if name == "candidates" else ".")
      )
  if not _is_searched(strategies.find_strategy(cfg.select.strategy)):
    able = [name for name, each in strategies.STRATEGIES.items() if _is_searched(each)]
    raise InputError(
      f"select.search compares settings of {', '.join(able)}, and select.strategy is"
      f" {cfg.select.strategy!r}; set select.search.candidates=0 for no search."
    )
  first = {name: _read(name, cfg.select[name]) for name in SETTINGS}
  choices = [_list_values(own[name], name, first[name]) for name in SETTINGS]
  if own.tempering is not None and cfg.select.target != "tempered":
    raise InputError(
      "select.search.tempering compares powers of the target tempered, and"
      f" select.target is {cfg.select.target!r}."
    )
  every = [dict(zip(SETTINGS, each, strict=True)) for each in _products(choices)]
  others = [each for each in every if each != first]
  if not others:
    raise InputError(
      "select.search has nothing to compare; give alternatives, as in"
      " --config.select.search.kl_weight=0.2,0.4,1."
    )
  return [first, *others]


def check_search(run: Run, there: Collection[str] | None = None) -> None:
  """Refuses, before anything is made, settings that no candidate could have.

  Args:
    run: the invocation.
    there: columns of the score table, see `candidates.check_names`.
  """
  if run.cfg.select.search.candidates:
    for settings in list_products(run.cfg):
      check_names(run, there, **settings)


def _is_searched(strategy: Strategy) -> bool:
  """Whether a strategy reads the settings of which a search has alternatives."""
  return strategy.bounded and {"kl_weight", "tempering"} <= set(strategy.settings)


def _products(choices: list[list[Any]]) -> list[tuple]:
  return list(itertools.product(*choices))


def check_alternatives(cfg: Any, there: Collection[str]) -> None:
  """Refuses alternatives that name no signal or column, whether they are compared.

  Args:
    cfg: the whole config.
    there: columns of the score table.
  """
  own, columns = cfg.select.search, {*SIGNALS, *POOL_COLUMNS, *there}
  for name in listing.split_names(own.signal):
    if name not in {*SIGNALS, *there}:
      raise InputError(
        f"select.search.signal names {name!r}; there are {', '.join(SIGNALS)}, and the"
        f" score table has {', '.join(sorted(there))}."
      )
  for form in listing.split_names(own.groups):
    try:
      grouping.check_form(form, columns)
    except InputError as error:
      raise InputError(f"select.search.groups has {form!r}: {error}") from error


def _list_values(value: Any, name: str, first: Any) -> list[Any]:
  given = listing.split_names(value)
  return list(dict.fromkeys([first, *(_read(name, each) for each in given)]))


def _read(name: str, value: Any) -> Any:
  """A value as `select` takes it: numbers as numbers."""
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
