"""evaluate: asks each arm's tuned model the questions of the evaluation set."""

from mllm_selector_jax.pipeline.arms import arms
from mllm_selector_jax.pipeline.evaluate_arm import check_tasks, evaluate_arm
from mllm_selector_jax.pipeline.leakage import check_leakage
from mllm_selector_jax.runs.context import Run


def evaluate(run: Run) -> None:
  """Makes `arms/<name>/evaluation/` for every arm of the config, or that of --arm."""
  check_tasks(run)
  check_leakage(run)
  for arm in arms(run):
    evaluate_arm(run, arm)
