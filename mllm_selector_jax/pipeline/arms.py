"""Lists the arms of a run, and finds the pool and the scores of an arm."""

from typing import Any

from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection.strategies import CONTROL
from mllm_selector_jax.types import InputError


def arms(run: Run) -> tuple[str, ...]:
  """Return the names of the run's arms: "main", and the random control if it is on."""
  return ("main", CONTROL) if run.cfg.select.control else ("main",)


def at_arm(run: Run, arm: str) -> tuple[Run, dict[str, Any]]:
  """Find the pool and the scores that an arm's selection was made from.

  Returns:
    The run at the workdir of that pool and those scores, and the selection's
    provenance.

  Raises:
    InputError: The arm has no selection, or it was made from other scores.
  """
  selection = run.workdir.selection(arm)
  selection.digest()  # raises if the arm has no selection
  provenance = selection.provenance()
  assert provenance is not None
  workdir = run.workdir.at_scores(provenance["inputs"])
  if workdir is None:
    raise InputError(
      f"arms/{arm}/selection was made from other scores or another pool; run"
      " `mllm-selector select` first."
    )
  return run.at(workdir), provenance
