"""The arms of a run, and where an arm's pool and scores are."""

from typing import Any

from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection.strategies import CONTROL
from mllm_selector_jax.types import InputError


def arms(run: Run) -> tuple[str, ...]:
  """The arms of a run: the configured strategy, and the random control."""
  return ("main", CONTROL) if run.cfg.select.control else ("main",)


def at_arm(run: Run, arm: str) -> tuple[Run, dict[str, Any]]:
  """Gives the run where the pool and the scores of an arm's selection are.

  Returns:
    The run, and the selection's provenance.

  Raises:
    InputError: there is no selection, or it was made from other scores.
  """
  selection = run.workdir.selection(arm)
  selection.digest()  # says what to run where there is none
  made = selection.provenance()
  place = run.workdir.at_scores(made["inputs"])
  if place is None:
    raise InputError(
      f"arms/{arm}/selection was made from other scores or another pool; run"
      " `mllm-selector select` first."
    )
  return run.at(place), made
