"""The rules for suspect rows by name, one a file; a new bound is one more line."""

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
  "MOST",
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
# Rules that other options turn on, beside the bound, in the order in which they go.
RULES: dict[str, Bound] = {
  "visual": visual.RULE,
  "competence": gate.RULE,
}
MOST = 0.9  # the largest share that a number may be


def _adapt(name: str, found: Any) -> Bound:
  """A plug-in's bound, whose suspects are checked before they count."""
  if not isinstance(found, Bound):
    if not callable(found):
      raise TypeError(
        f"it is a {type(found).__name__}; a bound is a function from Inputs to the"
        " suspect rows, or a selection.bounds.Bound."
      )
    words = (found.__doc__ or "rows that the plug-in names").splitlines()[0]
    found = Bound(found, words=words)

  def find(inputs: Inputs) -> Suspects:
    with plugins.calling(f"select.bound {name}"):
      given = found.find(inputs)
    suspects = given if isinstance(given, Suspects) else Suspects(given, {})
    mask = np.asarray(suspects.suspect)
    if mask.shape != inputs.groups.shape or mask.dtype != bool:
      raise InputError(
        f"select.bound {name} returned {mask.dtype} of shape {mask.shape}; a bound"
        f" returns one bool for each of the {len(inputs.groups):,} rows."
      )
    return Suspects(mask, dict(suspects.spared))

  reason = found.reason or f"{PREFIX}by the bound {name}"
  return dataclasses.replace(found, find=find, reason=reason)


LOOKUP = plugins.Lookup(
  "bound",
  f"{plugins.PACKAGE}.bounds",
  BOUNDS,
  _adapt,
  f", or a number from 0 to {MOST}, the top share of each group's necessity",
)


def find_bound(value: float | str) -> Bound:
  """Gives the bound of a value of select.bound; a number is the quantile's share.

  Raises:
    InputError: there is no such bound; see `plugins.Lookup.find`.
  """
  if isinstance(value, str):
    return LOOKUP.find(value, "select.bound")
  return quantile.of_share(float(value))


def list_meanings() -> dict[str, str]:
  """What each reason means for which bounds and rules leave rows out."""
  every = [*RULES.values(), *BOUNDS.values()]
  return {each.reason: each.meaning for each in every if each.reason}
