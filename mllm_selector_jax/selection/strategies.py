"""Maps the names of strategies to their functions; a new strategy is one more line."""

import dataclasses
import functools
from typing import Any

import numpy as np
from jaxtyping import Int

from mllm_selector_jax import plugins
from mllm_selector_jax.selection import baselines, kl
from mllm_selector_jax.selection.eligibility import Scores, find_limits
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.limited import judge_limits
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget
from mllm_selector_jax.selection.rivals import (
  by_signal,
  coincide,
  d2,
  deita,
  facility_location,
  k_center,
  semdedup,
)
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy
from mllm_selector_jax.types import InputError

CONTROL = "random"  # the strategy that every selection is compared with
REFERENCE = "reference"  # the strategy that takes the rows of select.reference
OBJECTIVE = "kl"  # the strategy whose target shares are used to measure any selection

STRATEGIES: dict[str, Strategy] = {
  "kl": kl.STRATEGY,
  "grouped": baselines.GROUPED,
  "random": baselines.RANDOM,
  "stratified": baselines.STRATIFIED,
  REFERENCE: baselines.REFERENCE,
  "top": baselines.TOP,
  "middle": baselines.MIDDLE,
  "perplexity": by_signal.PERPLEXITY,
  "el2n": by_signal.EL2N,
  "grand": by_signal.GRAND,
  "ifd": by_signal.IFD,
  "visnec": by_signal.VISNEC,
  "d2": d2.STRATEGY,
  "semdedup": semdedup.STRATEGY,
  "k_center": k_center.STRATEGY,
  "facility_location": facility_location.STRATEGY,
  "coincide": coincide.STRATEGY,
  "deita": deita.STRATEGY,
}


def _adapt(name: str, plugin: Any) -> Strategy:
  """Makes a strategy of a plug-in's object, and checks the selections it returns."""
  if not isinstance(plugin, Strategy):
    if not callable(plugin):
      raise TypeError(
        f"it is a {type(plugin).__name__}; a strategy is a function (scores, groups,"
        " budget, rng, options) -> Selection, or a selection.strategy.Strategy."
      )
    plugin = Strategy(plugin, takes=(plugin.__doc__ or "").partition("\n")[0])
  function = functools.partial(_call, name, plugin.function)
  return dataclasses.replace(plugin, function=function)


def _call(name, function, scores, groups, budget, rng, options) -> Selection:
  with plugins.calling(f"select.strategy {name}"):
    chosen = function(scores, groups, budget, rng, options)
  if not isinstance(chosen, Selection):
    raise InputError(
      f"select.strategy {name} returned a {type(chosen).__name__}; a strategy returns a"
      " selection.selection.Selection, as `ordered.by_gain` makes it."
    )
  if len(chosen.kept) != len(scores.key):
    raise InputError(
      f"select.strategy {name} decided about {len(chosen.kept):,} rows of"
      f" {len(scores.key):,}; a selection must decide about every row of the scores."
    )
  return chosen


LOOKUP = plugins.Lookup("strategy", f"{plugins.PACKAGE}.strategies", STRATEGIES, _adapt)


def find_strategy(name: str, option: str = "select.strategy") -> Strategy:
  """Returns the strategy of a name, which may be that of a plug-in.

  Args:
    name: the name.
    option: the option that names it, for messages.

  Raises:
    InputError: there is no such strategy; see `plugins.Lookup.find`.
  """
  return LOOKUP.find(name, option)


def select(
  scores: Scores,
  groups: Groups | Int[np.ndarray, " N"],
  budget: Budget,
  rng: int = 0,
  options: SelectOptions | None = None,
) -> Selection:
  """Selects rows by the strategy that the options name.

  Args:
    scores: the eligible rows, without those that were set aside.
    groups: the groups of the same rows. Plain numbers from 0 are also the names of
      their groups.
    budget: a number of rows, a share of the rows not left out, training tokens, or
      FLOPs of tuning.
    rng: seed of every draw.
    options: the parameters; by default those of `kl`.

  Raises:
    InputError: there is no such strategy, or it needs a signal or embeddings that the
      scores do not hold; see `eligibility.sort_out`, `budget`.
  """
  options = options or SelectOptions()
  if not isinstance(groups, Groups):
    index = np.asarray(groups)
    names = map(str, range(int(index.max(initial=-1)) + 1))
    groups = Groups(index, tuple(names))
  function = find_strategy(options.strategy).function
  chosen = function(scores, groups, budget, rng, options)
  limits = find_limits(scores, options)
  return judge_limits(limits, chosen, options.strategy) if limits else chosen
