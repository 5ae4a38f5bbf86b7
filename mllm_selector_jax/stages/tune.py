"""tune: fine-tunes the base model on each arm's selection."""

from mllm_selector_jax.pipeline.arms import arms
from mllm_selector_jax.pipeline.tune_arm import tune_arm
from mllm_selector_jax.runs.context import Run


def tune(run: Run) -> None:
  """Makes `arms/<name>/tuned/` for every arm of the config."""
  for arm in arms(run):
    tune_arm(run, arm)
