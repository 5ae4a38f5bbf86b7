"""The bound `quantile`, and those that are numbers: the top necessity of each group."""

import functools

from mllm_selector_jax.selection.bounds.bound import Bound, Inputs
from mllm_selector_jax.selection.heldout_loss import Suspects
from mllm_selector_jax.selection.necessity import SMALL_GROUP, above_bound

SHARE = 0.15  # the share of each group, for the bound `quantile`
REASON = "suspect: upper necessity bound"
MEANING = "its loss is among its group's highest"


def find(inputs: Inputs, share: float = SHARE) -> Suspects:
  """Finds the top share of each group; see `necessity.above_bound`."""
  return Suspects(above_bound(inputs.normalised_necessity, inputs.groups, share), {})


def of_share(share: float) -> Bound:
  """Returns the bound with a given share of each group."""
  written = f"{share:g}".removeprefix("0")
  return Bound(
    functools.partial(find, share=share),
    words=f"the {written} of each group with the highest necessity, in groups of"
    f" {SMALL_GROUP} rows or more; a number is that share instead",
    reason=REASON,
    meaning=MEANING,
  )


BOUND = of_share(SHARE)
