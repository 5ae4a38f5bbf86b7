"""Draws the demo pool, where the config asks for one; check and run call it."""

from mllm_selector_jax import artifacts
from mllm_selector_jax.data import demo
from mllm_selector_jax.stages.context import Run


def draw(run: Run) -> None:
  """Makes `demo_pool/`: pool.json, images/, truth.parquet and evaluation/."""
  cfg = run.cfg.pool.demo
  recipe = run.recipe("draw", cfg, {})

  def build(folder):
    shares = {name: cfg[name] for name in ("wrong", "misaligned", "duplicates")}
    options = demo.PoolOptions(rows=cfg.rows, seed=cfg.seed, **shares)
    with run.progress("draw pool", "row") as progress:
      counts = demo.draw_pool(folder, options, progress)
    questions = demo.EvaluationOptions(questions=cfg.questions, seed=cfg.seed)
    with run.progress("draw questions", "question") as progress:
      demo.draw_evaluation(folder / "evaluation", questions, progress)
    artifacts.write_json(folder / "counts.json", counts)

  run.make(run.workdir.demo, recipe, build)
