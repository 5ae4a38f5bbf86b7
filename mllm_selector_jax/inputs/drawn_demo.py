"""Draws the demo pool if the config asks for one."""

from typing import Any

from mllm_selector_jax import demo
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run


def is_drawn(cfg: Any) -> bool:
  """Say whether the pool is drawn by `pool.demo`; `pool.data` takes precedence."""
  return cfg.pool.demo.rows > 0 and not cfg.pool.data


def draw(run: Run) -> None:
  """Make `demo_pool/`: pool.json, images/, truth.parquet and evaluation/."""
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
  """Make the options of the drawn pool and of its questions.

  Args:
    cfg: The section `pool.demo`.

  Raises:
    InputError: The number of rows or of questions is 0, or a share is invalid.
  """
  shares = {name: cfg[name] for name in ("wrong", "misaligned", "duplicates")}
  options = demo.PoolOptions(rows=cfg.rows, seed=cfg.seed, **shares)
  return options, demo.EvaluationOptions(questions=cfg.questions, seed=cfg.seed)
