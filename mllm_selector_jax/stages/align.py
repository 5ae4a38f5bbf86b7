"""align: stage 1, teaches the projector alone on a pool of captions."""

import numpy as np

from mllm_selector_jax.selection import budget
from mllm_selector_jax.stages import base, fine_tune
from mllm_selector_jax.stages.context import Run


def align(run: Run) -> None:
  """Makes `aligned/`: the base with its projector trained on the pool, in `hf/`."""
  cfg = run.cfg.align
  recipe = run.recipe(
    "align",
    {**fine_tune.recipe_config(cfg), "model": base.model_config(run)},
    {
      "pool": run.workdir.pool.digest(),
      "base": base.hash_model(base.base_path(run)),
    },
  )

  def build(folder):
    rows = _choose_rows(run)
    fine_tune.fine_tune(run, cfg, rows, folder, "align")

  run.make(run.workdir.aligned, recipe, build, together=True)


def _choose_rows(run: Run) -> np.ndarray:
  pool = base.open_pool(run)
  wanted = run.cfg.align.rows
  count = budget.resolve_count(wanted, pool.ok, pool.tokens, name="align.rows")
  return base.draw_rows(pool, count, run.cfg.rng_seed)
