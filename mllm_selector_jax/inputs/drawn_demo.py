"""Draws the demo pool, where the config asks for one; check and run call it."""

from typing import Any

from mllm_selector_jax import demo
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run


def is_drawn(cfg: Any) -> bool:
  """Whether the pool is the one that `pool.demo` draws: given data go before it."""
  return cfg.pool.demo.rows > 0 and not cfg.pool.data


def draw(run: Run) -> None:
  """Makes `demo_pool/`: pool.json, images/, truth.parquet and evaluation/."""
  cfg = run.cfg.pool.demo
  recipe = run.recipe("draw", cfg, {})

  def build(folder):
    options, questions = make_options(cfg)
    with run.progress("draw pool", "row") as progress:
      counts = demo.draw_pool(folder, options, progress)
    with run.progress("draw questions", "question") as progress:
      demo.draw_evaluation(folder / "evaluation", questions, progress)
    artifacts.write_json(folder / "counts.json", counts)

  run.make(run.workdir.demo, recipe, build)


def make_options(cfg: Any) -> tuple[demo.PoolOptions, demo.EvaluationOptions]:
  """What `cfg.pool.demo` asks for.

  Raises:
    InputError: it asks for no rows or no questions, or a share is none.
  """
  shares = {name: cfg[name] for name in ("wrong", "misaligned", "duplicates")}
  options = demo.PoolOptions(rows=cfg.rows, seed=cfg.seed, **shares)
  return options, demo.EvaluationOptions(questions=cfg.questions, seed=cfg.seed)
