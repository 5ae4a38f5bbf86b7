"""The bound `thorough`: `mixture` on the loss of models tuned on the other half."""

from mllm_selector_jax.selection.bounds.bound import Bound, Inputs
from mllm_selector_jax.selection.heldout_loss import Suspects, find_doubted

REASON = "suspect: unlikely to a model that has not seen it"


def find(inputs: Inputs) -> Suspects:
  """Finds rows in the upper mode of the held-out loss that its model gets wrong."""
  assert inputs.doubt is not None, "given to bounds with `held_out`"
  return find_doubted(inputs.doubt, inputs.groups, inputs.answers)


BOUND = Bound(
  find,
  words="the mixture and its gate on a held-out loss: one model is tuned on each half"
  " of the pool by the seed's recipe and scores the other half; halves are formed by"
  " content, so that copies fall into the same half, and every cluster is spread over"
  " both",
  reason=REASON,
  cost="two more models and a pass",
  held_out="thorough",
  by_skill=True,
)
