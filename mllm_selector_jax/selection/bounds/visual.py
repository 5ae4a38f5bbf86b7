"""The rule of select.visual: rows whose answer is less likely with their image."""

from mllm_selector_jax.selection.bounds.bound import Bound, Inputs
from mllm_selector_jax.selection.heldout_loss import Suspects
from mllm_selector_jax.selection.necessity import misaligned


def find(inputs: Inputs) -> Suspects:
  """Finds rows whose loss is lower without their image."""
  return Suspects(misaligned(inputs.signals["visual"]), {})


RULE = Bound(
  find,
  words="rows that their image makes less likely",
  reason="suspect: less likely with its image",
  meaning="its image may belong to another row",
  signals=("visual",),
  finite=False,  # the signal is NaN for a row without an image
)
