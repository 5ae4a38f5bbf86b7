"""A bound: the largest error norms of each group."""

from mllm_selector_jax.selection.bounds import Bound
from mllm_selector_jax.selection.necessity import above_bound, rank_normalise


def error_norm(inputs):
  """The tenth of each group with the largest error norm."""
  ranks = rank_normalise(inputs.signals["el2n"], inputs.seen)
  return above_bound(ranks, inputs.groups, 0.1)


ERROR_NORM = Bound(
  error_norm,
  words="the tenth of each group with the largest error norm",
  reason="suspect: the seed model expects another answer",
  meaning="its error norm is among its group's largest",
  signals=("el2n",),
)
