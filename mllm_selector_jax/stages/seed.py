"""seed: fine-tunes the base on a small random share of the pool."""

from mllm_selector_jax.selection import budget
from mllm_selector_jax.stages import base, fine_tune
from mllm_selector_jax.stages.context import Run


def seed(run: Run) -> None:
  """Makes `seed/`: the rows, the metrics and the seed model in `hf/`."""
  cfg = run.cfg.seed
  recipe = run.recipe(
    "seed",
    {**fine_tune.recipe_config(cfg), "model": base.model_config(run)},
    {
      "pool": run.workdir.pool.digest(),
      "base": base.hash_model(base.base_path(run)),
    },
  )

  def build(folder):
    pool = base.open_pool(run)
    count = budget.resolve_count(cfg.rows, pool.ok, pool.tokens, name="seed.rows")
    rows = base.draw_rows(pool, count, run.cfg.rng_seed)
    fine_tune.fine_tune(run, cfg, rows, folder, "seed")

  run.make(run.workdir.seed, recipe, build, together=True)
