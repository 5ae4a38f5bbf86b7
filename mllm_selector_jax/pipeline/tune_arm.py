"""Fine-tunes the base model on an arm's selection."""

import numpy as np

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.pipeline import fine_tune
from mllm_selector_jax.pipeline.tuning_recipe import recipe_config
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run


def tune_arm(run: Run, arm: str, steps: int | None = None) -> None:
  """Make the tuned model of one arm.

  Args:
    run: The invocation.
    arm: Name of the arm.
    steps: How many steps to train, over as many epochs as needed; None trains for
      `tune.epochs`.
  """
  recipe = make_recipe(run, arm, steps)

  def build(folder):
    rows = kept_rows(run, arm)
    fine_tune.fine_tune(run, run.cfg.tune, rows, folder, f"tune {arm}", steps)

  run.make(run.workdir.tuned(arm), recipe, build, together=True)


def make_recipe(run: Run, arm: str, steps: int | None = None) -> artifacts.Recipe:
  """Return what the tuned model of an arm is made from; arguments as of `tune_arm`.

  Raises:
    InputError: The arm has no selection.
  """
  selection = run.workdir.selection(arm)
  selection.digest()
  provenance = selection.provenance()
  assert provenance is not None
  return run.recipe(
    "tune",
    {
      **recipe_config(run.cfg.tune, steps),
      "model": base_model.model_config(run),
    },
    {
      # Only the kept records: the gains may change while the kept rows do not.
      "selection": provenance["outputs"]["selected.json"],
      "pool": run.workdir.pool.digest(),
      "base": base_model.hash_model(base_model.base_path(run)),
    },
  )


def kept_rows(run: Run, arm: str) -> np.ndarray:
  """Read the numbers of the pool rows that an arm's selection keeps, ascending."""
  import pyarrow.parquet as pq

  path = run.workdir.selection(arm).path / "selection.parquet"
  table = pq.read_table(path, columns=["row", "kept"])
  return table["row"].to_numpy()[table["kept"].to_numpy(zero_copy_only=False)]
