"""tune: fine-tunes the base model on each arm's selection."""

from mllm_selector_jax.pipeline.arms import arms
from mllm_selector_jax.pipeline.kept_arms import place_model
from mllm_selector_jax.pipeline.tune_arm import make_recipe, tune_arm
from mllm_selector_jax.runs.context import Run


def tune(run: Run) -> None:
  """Makes `arms/<name>/tuned/` for every arm of the config, or for that of --arm."""
  for arm in arms(run):
    tune_arm(run, place_model(run, arm, make_recipe(run, arm)))
