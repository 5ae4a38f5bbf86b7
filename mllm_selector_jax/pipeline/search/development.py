"""Measures trials of a search, on held-out rows of the pool or on question files."""

import shutil
from typing import Any

import numpy as np

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.held_out import OPTION, hold_out, read_files, read_share
from mllm_selector_jax.pipeline import evaluate_arm, score_pool
from mllm_selector_jax.pipeline.clusters import read_keys
from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring import passes, score_table
from mllm_selector_jax.types import InputError


def measure_arm(run: Run, arm: str) -> None:
  """Make `evaluation/` of one arm, on the development split."""
  if read_files(run.cfg):
    evaluate_arm.evaluate_arm(_at_development(run), arm)
  else:
    _measure_rows(run, arm)


def _at_development(run: Run) -> Run:
  """Return a run whose evaluation uses the development questions."""
  tasks = tuple(read_files(run.cfg))
  images = run.cfg.select.search.images
  return run.at(settings={"evaluate.tasks": tasks, "evaluate.images": images})


def _measure_rows(run: Run, arm: str) -> None:
  """Measure by source the share of answer tokens that the tuned model gets right."""
  share = read_share(run.cfg)
  recipe = run.recipe(
    "select",
    {"development": share, "model": base_model.model_config(run)},
    {"tuned": run.workdir.tuned(arm).digest(), "pool": run.workdir.pool.digest()},
  )

  def build(folder):
    pool, options = base_model.open_pool(run), score_pool.make_options(run.cfg)
    usable = np.flatnonzero(pool.ok)
    key = read_keys(pool, usable)
    rows = usable[hold_out(key, share, run.cfg.rng_seed)]
    if not len(rows):
      raise InputError(
        f"{OPTION} holds out {share:.2%} of {len(usable):,} rows, which is less than"
        " one row; raise it, or give question files."
      )
    work, models = (
      folder / score_pool.WORK,
      {"seed": run.workdir.tuned(arm).path / "hf"},
    )
    main = [passes.MAIN]
    title = f"develop {arm}"
    counts = score_pool.run_passes(run, work, models, main, rows, options, pool, title)
    if not peers.is_first_process():
      return
    part_counts = {"main": counts["main"]["parts"]}
    signals = ("loss", "accuracy")
    scored = score_table.read_passes(
      {"main": work / "main"}, part_counts, pool, rows[:0], signals
    )
    results = summarise(
      pool.source[scored.row],
      scored.columns["accuracy"].to_numpy(),
      scored.columns["loss"].to_numpy(),
    )
    artifacts.write_json(folder / "results.json", results)
    shutil.rmtree(work)

  run.make(run.workdir.evaluation(arm), recipe, build, together=True)


def summarise(source: Any, accuracy: np.ndarray, loss: np.ndarray) -> dict[str, Any]:
  """Average the accuracy by source, and over sources.

  A row whose loss is not finite counts as wrong.

  Args:
    source: The source of each row.
    accuracy: The share of right tokens of each row, [n].
    loss: The loss of each row, [n].

  Returns:
    A dict laid out as `results.json` of an evaluation, with sources as tasks.
  """
  names, index = np.unique(np.asarray(source, dtype=str), return_inverse=True)
  order = np.lexsort((loss, accuracy, index))  # makes the sums independent of row order
  index, accuracy, loss = index[order], accuracy[order], loss[order]
  sizes = np.bincount(index)
  right = np.bincount(index, np.where(np.isfinite(loss), accuracy, 0.0)) / sizes
  tasks = {
    str(name): {"value": float(value), "count": int(size)}
    for name, value, size in zip(names, right, sizes, strict=True)
  }
  macro = {"value": float(right.mean()), "count": len(loss)}
  return {"macro": macro, "tasks": tasks}
