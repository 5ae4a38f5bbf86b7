"""The bound `tail_safe`: wrong rows among those of the highest necessity."""

from mllm_selector_jax.selection.bounds import quantile
from mllm_selector_jax.selection.bounds.bound import Bound, Inputs
from mllm_selector_jax.selection.heldout_loss import Suspects
from mllm_selector_jax.selection.necessity import above_bound, failed_where_competent

SHARE, COMPETENCE = 0.2, 0.3


def find(inputs: Inputs) -> Suspects:
  """Finds wrong rows in the top `SHARE` of groups of which `COMPETENCE` is right."""
  above = above_bound(inputs.normalised_necessity, inputs.groups, SHARE)
  # Groups are judged by rows that the seed model was not tuned on, if there are any:
  # it has memorised the others.
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
