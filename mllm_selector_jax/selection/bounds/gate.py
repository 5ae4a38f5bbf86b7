"""The bound `gate`: wrong answers in groups that the seed model mostly gets right."""

import dataclasses

from mllm_selector_jax.selection.bounds.bound import Bound, Inputs
from mllm_selector_jax.selection.heldout_loss import Suspects
from mllm_selector_jax.selection.necessity import failed_where_competent

COMPETENCE = (
  0.6  # the share of a group's rows that is right, if select.competence is off
)


def find(inputs: Inputs) -> Suspects:
  """Finds wrong rows in groups that are mostly right; see `failed_where_competent`."""
  failed = failed_where_competent(
    inputs.signals["accuracy"],
    inputs.groups,
    inputs.competence or COMPETENCE,
    answers=inputs.answers,
  )
  return Suspects(failed, {})


BOUND = Bound(
  find,
  words="as `select.competence` of .6",
  reason="suspect: wrong where the seed model is mostly right",
  signals=("accuracy",),
  by_skill=True,
)
# The rule of select.competence, in addition to another bound.
RULE = dataclasses.replace(
  BOUND,
  words="rows that the seed model gets wrong, in groups of which it gets at least this"
  " share right",
)
