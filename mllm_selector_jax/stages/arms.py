"""arms: lists the arms of a workdir."""

from mllm_selector_jax.pipeline.arm_list import format_arms, list_arms
from mllm_selector_jax.runs.context import Run


def arms(run: Run) -> None:
  """Says for each arm its rows, size, stages, results and age, and what `main` is."""
  run.begin("arms")
  for line in format_arms(list_arms(run)):
    run.say(line)
