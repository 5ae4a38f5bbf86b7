"""Model FLOPs of rows: of training by a recipe, and of passes over the pool.

They are the model's own, as training/work.py counts them: without padding and
recomputation.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import LoraConfig, MllmConfig
from mllm_selector_jax.training import work
from mllm_selector_jax.training.train_step import split_params


def make_row_rates(config: MllmConfig, section: Any | None) -> work.Rates:
  """What training by a section's recipe costs; with None, a forward pass."""
  if section is None:
    return work.make_rates(config, mllm.abstract(config), None)
  if section.lora.rank:
    adapter = LoraConfig(section.lora.rank, section.lora.alpha)
    config = dataclasses.replace(config, lora=adapter)
  params = mllm.abstract(config)
  trained, _ = split_params(params, section.trainable)
  return work.make_rates(config, params, trained.keys())


def row_flops(rates: work.Rates, pool: Any) -> Float[np.ndarray, " N"]:
  """FLOPs of every row of the pool as a sample of its own."""
  tokens = pool.tokens.astype(np.float64)
  keys = tokens * (tokens + 1) / 2
  return rates.flops(tokens, keys, pool.supervised, pool.tiles)


def pass_flops(
  config: MllmConfig, pool: Any, rows: np.ndarray, passes: dict[str, dict[str, int]]
) -> float:
  """FLOPs of passes over these rows.

  Args:
    config: of the model.
    pool: the checked pool.
    rows: numbers of the rows, or a mask.
    passes: what `engine.run_pass` counts, by pass.
  """
  rates, found = make_row_rates(config, None), 0.0
  text = row_flops(rates._replace(tile=0.0), pool)[rows].sum()
  tokens = pool.tokens[rows].sum()
  for counts in passes.values():
    # Samples of one image share its tokens, and the tower sees its tiles once. A
    # control pass does not count the tokens of its changed rows: it is taken as the
    # main one.
    share = counts["tokens"] / tokens if counts["tokens"] else 1.0
    found += float(share * text + rates.tile * counts["tiles"])
  return found


def read_rows(folder: Path) -> Int[np.ndarray, " K"]:
  """The pool rows that the model of a folder was tuned on."""
  import pyarrow.parquet as pq

  return pq.read_table(folder / "rows.parquet", columns=["row"])["row"].to_numpy()


def count_steps(rows: int, section: Any) -> int:
  """Training steps of that many rows by the section's recipe."""
  return section.epochs * -(-rows // section.batch)


def count_samples(rows: int, steps: int, batch: int) -> int:
  """Samples that the first steps of shuffled epochs have; the last may be short."""
  whole, rest = divmod(steps, -(-rows // batch))
  return whole * rows + min(rest * batch, rows)
