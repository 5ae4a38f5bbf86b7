"""Derives the config and the folders of one seed of a comparison."""

from mllm_selector_jax.comparison.comparison_plan import Plan
from mllm_selector_jax.runs.context import Run


def at_seed(run: Run, plan: Plan, seed: int) -> Run:
  """Returns the run of one seed, with its config and its folders."""
  settings = {"rng_seed": seed}
  if plan.fresh_pools:
    settings["pool.demo.seed"] = seed
  return run.at(run.workdir.at_seed(seed, plan.fresh_pools), settings)
