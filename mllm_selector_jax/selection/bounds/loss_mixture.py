"""The bound `mixture`: the upper of two modes of the loss in each group."""

from mllm_selector_jax.selection.bounds.bound import Bound, Inputs
from mllm_selector_jax.selection.heldout_loss import Doubt, Suspects, find_doubted


def find(inputs: Inputs) -> Suspects:
  """Finds rows in the upper mode of the seed model's loss that it gets wrong."""
  doubt = Doubt(inputs.signals["loss"], inputs.signals["accuracy"])
  return find_doubted(doubt, inputs.groups, inputs.answers)


BOUND = Bound(
  find,
  words="the default: the upper of two Gaussians that are fitted to the loss of each"
  " group, as described above",
  reason="suspect: unlikely to the seed model",
  signals=("loss", "accuracy"),
  by_skill=True,
)
