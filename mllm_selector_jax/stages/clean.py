"""clean: removes the arms that are named."""

from mllm_selector_jax.pipeline.clean_arms import clean_arms
from mllm_selector_jax.runs.context import Run


def clean(run: Run) -> None:
  """Removes the arms of --arm=NAME[,NAME], and says what that freed."""
  run.begin("clean")
  clean_arms(run, run.arm or "")
