"""Maps the names of bounds, the rules for suspect rows, to one module for each."""

import dataclasses
from typing import Any

import numpy as np

from mllm_selector_jax import plugins
from mllm_selector_jax.selection.bounds import (
  gate,
  loss_mixture,
  no_bound,
  probe,
  quantile,
  tail_safe,
  thorough,
  visual,
)
from mllm_selector_jax.selection.bounds.bound import PREFIX, Bound, Inputs
from mllm_selector_jax.selection.heldout_loss import Suspects
from mllm_selector_jax.types import InputError

__all__ = [
  "BOUNDS",
  "LOOKUP",
  "MAX_SHARE",
  "PREFIX",
  "RULES",
  "Bound",
  "Inputs",
  "Suspects",
  "find_bound",
  "list_meanings",
]

BOUNDS: dict[str, Bound] = {
  "none": no_bound.BOUND,
  "quantile": quantile.BOUND,
  "gate": gate.BOUND,
  "tail_safe": tail_safe.BOUND,
  "mixture": loss_mixture.BOUND,
  "probe": probe.BOUND,
  "thorough": thorough.BOUND,
}
# Rules that other options enable in addition to the bound, in the order of application.
RULES: dict[str, Bound] = {
  "visual": visual.RULE,
  "competence": gate.RULE,
}
MAX_SHARE = 0.9  # the maximum of select.bound, if it is a number


def _adapt(name: str, plugin: Any) -> Bound:
  """Makes a bound of a plug-in's object, and checks the suspects that it returns."""
  if not isinstance(plugin, Bound):
    if not callable(plugin):
      raise TypeError(
        f"it is a {type(plugin).__name__}; a bound is a function from Inputs to the"
        " suspect rows, or a selection.bounds.Bound."
      )
    words = (plugin.__doc__ or "rows that the plug-in names").splitlines()[0]
    plugin = Bound(plugin, words=words)

  def find(inputs: Inputs) -> Suspects:
    with plugins.calling(f"select.bound {name}"):
      result = plugin.find(inputs)
    suspects = result if isinstance(result, Suspects) else Suspects(result, {})
    mask = np.asarray(suspects.suspect)
    if mask.shape != inputs.groups.shape or mask.dtype != bool:
      raise InputError(
        f"select.bound {name} returned {mask.dtype} of shape {mask.shape}; a bound"
        f" returns one bool for each of the {len(inputs.groups):,} rows."
      )
    return suspects._replace(suspect=mask, spared=dict(suspects.spared))

  reason = plugin.reason or f"{PREFIX}by the bound {name}"
  return dataclasses.replace(plugin, find=find, reason=reason)


LOOKUP = plugins.Lookup(
  "bound",
  f"{plugins.PACKAGE}.bounds",
  BOUNDS,
  _adapt,
  f", or a number from 0 to {MAX_SHARE}, the top share of each group's necessity",
)


def find_bound(value: float | str) -> Bound:
  """Returns the bound that a value of select.bound stands for.

  Args:
    value: a name, or a number, which stands for `quantile` with that share.

  Raises:
    InputError: there is no such bound; see `plugins.Lookup.find`.
  """
  if isinstance(value, str):
    return LOOKUP.find(value, "select.bound")
  return quantile.of_share(float(value))


def list_meanings() -> dict[str, str]:
  """Returns an explanation of each reason for which bounds and rules leave rows out."""
  rules = [*RULES.values(), *BOUNDS.values()]
  return {rule.reason: rule.meaning for rule in rules if rule.reason}
