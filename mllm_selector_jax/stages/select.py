"""select: decides which rows are kept, and records the reason for every row."""

from mllm_selector_jax.pipeline.search.search_arms import search
from mllm_selector_jax.pipeline.select_arm import select_arm
from mllm_selector_jax.pipeline.sweep import sweep
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection.strategies import CONTROL


def select(run: Run) -> None:
  """Makes `arms/<name>/selection/` for every arm of the config."""
  budget, settings = run.cfg.select.budget, {"strategy": run.cfg.select.strategy}
  if searched := search(run):
    settings = searched["candidates"][searched["winner"]]
  select_arm(run, "main", budget=budget, verdict=searched.get("verdict"), **settings)
  if run.cfg.select.control:
    select_arm(run, CONTROL, CONTROL, budget)
  sweep(run)
