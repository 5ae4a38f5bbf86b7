"""Counts the FLOPs of the long stages, and the parameters of models."""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.packing.tree_packing import Plan
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.pipeline.flops import make_row_rates, row_flops, row_pairs
from mllm_selector_jax.pipeline.tuning_recipe import add_adapter
from mllm_selector_jax.training import work
from mllm_selector_jax.training.train_step import split_params


def train_flops(
  config: MllmConfig, section: Any, pool: Any, rows: Int[np.ndarray, " n"]
) -> float:
  """Return the mean FLOPs of one row in one epoch of a section's recipe."""
  rates = make_row_rates(config, section)
  return float(row_flops(config, rates, pool)[rows].mean())


def score_flops(
  config: MllmConfig, pool: Any, rows: Int[np.ndarray, " n"], plan: Plan
) -> float:
  """Count the FLOPs of a forward pass over some rows, with shared trunks counted once.

  Args:
    config: The model's config.
    pool: The checked pool.
    rows: Pool row numbers, the items of the plan.
    plan: The packing plan, which says which rows share a trunk.
  """
  lengths = pool.tokens[rows].astype(np.float64)
  spared = (np.diff(plan.trees) - 1).astype(np.float64)
  trunks = plan.trunks.astype(np.float64)
  keys = (lengths * (lengths + 1)).sum() - (spared * trunks * (trunks + 1)).sum()
  rates = work.make_rates(config, mllm.abstract(config), None)
  tiles = float(plan.tiles(pool.tiles[rows]).sum())
  share = tiles / max(float(pool.tiles[rows].sum()), 1.0)
  return rates.flops(
    lengths.sum() - (spared * trunks).sum(),
    keys / 2,
    float(pool.supervised[rows].sum()),
    tiles,
    tuple(share * float(each[rows].sum()) for each in row_pairs(config, pool)),
  )


def answer_flops(
  config: MllmConfig, tokens: float, new: int, tiles: float = 1.0
) -> float:
  """Count the FLOPs of answering a question with an image.

  Args:
    config: The model's config.
    tokens: Length of the question in tokens, image included.
    new: Number of generated tokens.
    tiles: Number of tiles of the image.
  """
  rates = work.make_rates(config, mllm.abstract(config), None)
  length = tokens + new
  vision, pairs = config.vision, (0, 0)
  if vision.native:
    pairs = work.estimate_pairs(vision.positions, vision.window, tiles, 1)
  return rates.flops(length, length * (length + 1) / 2, new, tiles, pairs)


def parameter_counts(config: MllmConfig) -> dict[str, int]:
  """Count the parameters of each part of the model."""
  return {
    name: sum(math.prod(x.shape) for x in jax.tree.leaves(part))
    for name, part in mllm.abstract(config).items()
  }


def count_trainable(config: MllmConfig, section: Any) -> int:
  """Count the parameters that a recipe trains; with LoRA, the adapters among them."""
  params = mllm.abstract(add_adapter(config, section))
  trained, _ = split_params(params, section.trainable)
  return sum(math.prod(x.shape) for x in jax.tree.leaves(trained))


def measure_matmul(dtype: str, side: int = 1024) -> float:
  """Measure the FLOP/s of a square matmul, for all devices of this process."""
  x = jnp.ones((side, side), dtype)
  fn = jax.jit(lambda a: a @ a)
  fn(x).block_until_ready()
  best = math.inf
  for _ in range(3):
    start = time.perf_counter()
    fn(x).block_until_ready()
    best = min(best, time.perf_counter() - start)
  devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
  return 2 * side**3 / best * devices
