"""Counts model FLOPs of training by a recipe and of passes over the pool.

As in training/work.py, padding and recomputation do not count.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.pipeline.tuning_recipe import add_adapter
from mllm_selector_jax.training import work
from mllm_selector_jax.training.train_step import split_params


def make_row_rates(config: MllmConfig, section: Any | None) -> work.Rates:
  """Return the cost rates of training by a section's recipe.

  Args:
    config: The model's config.
    section: A training section of the config; None for a forward pass.
  """
  if section is None:
    return work.make_rates(config, mllm.abstract(config), None)
  config = add_adapter(config, section)
  params = mllm.abstract(config)
  trained, _ = split_params(params, section.trainable)
  return work.make_rates(config, params, trained.keys())


def row_flops(
  config: MllmConfig, rates: work.Rates, pool: Any
) -> Float[np.ndarray, " N"]:
  """Return the FLOPs of every pool row, each as a separate sample."""
  return _row_flops(rates, row_pairs(config, pool), pool)


def _row_flops(rates: work.Rates, pairs: tuple[Any, Any], pool: Any) -> np.ndarray:
  tokens, tiles = pool.tokens.astype(np.float64), pool.tiles.astype(np.float64)
  keys = tokens * (tokens + 1) / 2
  return rates.flops(tokens, keys, pool.supervised, tiles, pairs)


def describe_costs(config: MllmConfig, section: Any) -> dict[str, Any]:
  """Return what `count_mflops` needs to know of a model and its training.

  Args:
    config: The model's config.
    section: A training section of the config.
  """
  native = config.vision.native
  return {
    "rates": list(make_row_rates(config, section)),
    "epochs": section.epochs,
    "positions": config.vision.positions if native else 0,
    "window": config.vision.window if native else 0,
  }


def count_mflops(pool: Any, costs: dict[str, Any]) -> Int[np.ndarray, " N"]:
  """Return the FLOPs of training on every pool row, in whole millions, rounded up.

  Whole numbers are summed exactly, so that a budget does not depend on the order of
  the rows.

  Args:
    pool: The checked pool.
    costs: From `describe_costs`.
  """
  rates, pairs = work.Rates(*costs["rates"]), (0, 0)
  if positions := costs["positions"]:
    tiles = pool.tiles.astype(np.float64)
    pairs = work.estimate_pairs(positions, costs["window"], tiles, pool.images.counts)
  each = costs["epochs"] * _row_flops(rates, pairs, pool)
  return np.ceil(each / 1e6).astype(np.int64)


def row_pairs(config: MllmConfig, pool: Any) -> tuple[Any, Any]:
  """Return the pairs of patches of every pool row; see `work.estimate_pairs`."""
  if not config.vision.native:
    return np.zeros(len(pool.tiles)), np.zeros(len(pool.tiles))
  tiles = pool.tiles.astype(np.float64)
  vision = config.vision
  return work.estimate_pairs(vision.positions, vision.window, tiles, pool.images.counts)


def pass_flops(
  config: MllmConfig, pool: Any, rows: np.ndarray, passes: dict[str, dict[str, int]]
) -> float:
  """Count the FLOPs of scoring passes over some rows.

  Args:
    config: The model's config.
    pool: The checked pool.
    rows: Pool row numbers, or a mask over the pool.
    passes: The counts that `engine.run_pass` returns, by name of the pass.
  """
  rates, total = make_row_rates(config, None), 0.0
  blind = rates._replace(tile=0.0, pair=0.0, near_pair=0.0)
  text = row_flops(config, blind, pool)[rows].sum()
  images = row_flops(config, rates, pool)[rows].sum() - text
  tokens, tiles = pool.tokens[rows].sum(), max(int(pool.tiles[rows].sum()), 1)
  for counts in passes.values():
    # Samples with the same image share its tokens, and the tower encodes it once. The
    # counts of a control pass have no tokens: it is taken to cost as much as the main.
    share = counts["tokens"] / tokens if counts["tokens"] else 1.0
    total += float(share * text + images * counts["tiles"] / tiles)
  return total


def read_rows(folder: Path) -> Int[np.ndarray, " K"]:
  """Read the numbers of the pool rows that the model in a folder was tuned on."""
  import pyarrow.parquet as pq

  return pq.read_table(folder / "rows.parquet", columns=["row"])["row"].to_numpy()


def count_steps(rows: int, section: Any) -> int:
  """Return how many steps the section's recipe trains on that many rows."""
  return section.epochs * -(-rows // section.batch)


def count_samples(rows: int, steps: int, batch: int) -> int:
  """Count the samples in the first steps of a training.

  Each epoch has all rows; its last batch may be smaller.
  """
  epochs, remaining_steps = divmod(steps, -(-rows // batch))
  return epochs * rows + min(remaining_steps * batch, rows)
