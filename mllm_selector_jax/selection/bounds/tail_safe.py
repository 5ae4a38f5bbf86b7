"""The bound `tail_safe`: of the highest necessity what the seed model gets wrong."""

from mllm_selector_jax.selection.bounds import quantile
from mllm_selector_jax.selection.bounds.bound import Bound, Inputs
from mllm_selector_jax.selection.heldout_loss import Suspects
from mllm_selector_jax.selection.necessity import above_bound, failed_where_competent

SHARE, COMPETENCE = 0.2, 0.3


def find(inputs: Inputs) -> Suspects:
  """The top `SHARE` of a group that is not right, where `COMPETENCE` of it is."""
  above = above_bound(inputs.necessity, inputs.groups, SHARE)
  # What the seed model was tuned on says little of what it knows.
  unseen = ~inputs.seen
  above &= failed_where_competent(
    inputs.signals["accuracy"],
    inputs.groups,
    COMPETENCE,
    unseen if unseen.any() else None,
    inputs.answers,
  )
  return Suspects(above, {})


BOUND = Bound(
  find,
  words="of the top .2 of a group's necessity, the rows that the seed model does not"
  " get wholly right, in groups of which it gets at least .3 wholly right among the"
  " rows that it was not tuned on (among all rows, if it was tuned on all)",
  reason=quantile.REASON,
  meaning=quantile.MEANING,
  signals=("accuracy",),
  by_skill=True,
)
