"""Counts what a search costs in model FLOPs, and plans its trials by that."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.held_out import OPTION, read_files
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.pipeline import flops
from mllm_selector_jax.pipeline.search.development import Split
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError

# Of the search's FLOPs, what measuring may take at most; the rest is for the tunes.
MEASURE_SHARE = 1 / 3
LEAST_ROWS = 30  # fewer measured rows decide nothing


class Costs(NamedTuple):
  """FLOPs of the rows of a pool; rows that are set aside have 0.

  Attributes:
    tune: FLOPs of training on each row once, by the recipe of the tune.
    forward: FLOPs of a forward pass over each row.
    epochs: Epochs of the tune.
  """

  tune: Float[np.ndarray, " N"]
  forward: Float[np.ndarray, " N"]
  epochs: int

  @property
  def full(self) -> float:
    """FLOPs of tuning on the full pool."""
    return float(self.tune.sum()) * self.epochs

  def count_tune(self, rows: np.ndarray, steps: int, batch: int) -> float:
    """Count the FLOPs of tuning on some rows, in the same way as a comparison does."""
    samples = flops.count_samples(len(rows), steps, batch)
    return float(self.tune[rows].mean()) * samples


def read_costs(run: Run) -> Costs:
  """Count the FLOPs of the rows of a run's pool."""
  config = huggingface.read_config(
    base_model.base_path(run), dtype=base_model.dtype(run)
  )
  pool = base_model.open_pool(run)
  tune, forward = (
    np.where(pool.ok, flops.row_flops(config, rates, pool), 0.0)
    for rates in (
      flops.make_row_rates(config, run.cfg.tune),
      flops.make_row_rates(config, None),
    )
  )
  return Costs(tune, forward, run.cfg.tune.epochs)


def plan_measure(cfg: Any, costs: Costs, held_out: Split, trials: int) -> Split:
  """Return the held-out rows on which each of so many trials is measured.

  These are all of them, or as many as `MEASURE_SHARE` of the search's FLOPs pay for.

  Raises:
    InputError: There are none, or fewer than `LEAST_ROWS` are paid for.
  """
  section, count = cfg.select.search, len(held_out.rows)
  if read_files(cfg):
    return held_out
  if not count:
    raise InputError(
      f"{OPTION}={section.development} holds out less than one of"
      f" {np.count_nonzero(costs.tune):,} rows; raise it, or give question files."
    )
  row = trials * float(costs.forward[held_out.rows].mean())
  paid = math.floor(MEASURE_SHARE * section.cost * costs.full / row)
  if paid < min(LEAST_ROWS, count):
    least = min(LEAST_ROWS, count) * row / MEASURE_SHARE / costs.full
    raise InputError(
      f"select.search.cost={section.cost:g} of the full tune pays for {trials} trials"
      f" on {paid} held-out rows only; give at least {least:.2g}, fewer candidates, or"
      " a larger pool."
    )
  return held_out.draw(paid)


def plan_steps(cfg: Any, costs: Costs, sizes: list[int], measured: Split) -> int:
  """Return the steps of the first tunes of a search.

  Args:
    cfg: The config.
    costs: The FLOPs of the pool.
    sizes: The number of trials of each rung.
    measured: The rows on which each trial is measured.

  Returns:
    `select.search.steps`, or if that is not given, as many as the rest of the search's
    FLOPs pays for.

  Raises:
    InputError: They do not pay for one step.
  """
  section = cfg.select.search
  if section.steps is not None:
    return section.steps
  step = cfg.tune.batch * float(costs.tune[costs.tune > 0].mean())
  tunes = sum(size * section.halving**rung for rung, size in enumerate(sizes))
  measures = sum(sizes) * float(costs.forward[measured.rows].sum())
  steps = math.floor((section.cost * costs.full - measures) / (tunes * step))
  if steps < 1:
    least = (measures + tunes * step) / costs.full
    raise InputError(
      f"select.search.cost={section.cost:g} of the full tune does not pay for one step"
      f" of each of its {sum(sizes)} trials; give at least {least:.2g}, or fewer"
      " candidates."
    )
  return steps
