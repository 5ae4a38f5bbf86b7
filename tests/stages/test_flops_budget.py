"""Budgets in FLOPs of tuning, in whole runs."""

import json

import numpy as np
import pyarrow.parquet as pq

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.pipeline import flops
from tests import small_run


def test_a_share_of_the_flops_is_filled_and_not_exceeded(select, base):
  _, folder = select(strategy="random", budget="20%flops")
  with small_run.open_run(folder, base, **{"score.model": str(base)}) as run:
    pool, tune = base_model.open_pool(run), run.cfg.tune
    model = huggingface.read_config(base_model.base_path(run))
    each = flops.row_flops(model, flops.make_row_rates(model, tune), pool) * tune.epochs
    costs = flops.describe_costs(model, tune)
  millions = np.ceil(each / 1e6)
  np.testing.assert_array_equal(flops.count_mflops(pool, costs), millions)
  table = pq.read_table(folder / "arms/main/selection/selection.parquet")
  rank = np.array([-1 if r is None else r for r in table["rank"].to_pylist()])
  kept = rank >= 0
  limit = millions[pool.ok].sum() // 5
  assert 0 < kept.sum() < pool.ok.sum() and millions[kept].sum() <= limit
  made = json.loads((folder / "arms/main/selection/provenance.json").read_text())
  assert made["config"]["flops"] == costs
  # One row more of the same drawn order would exceed the limit.
  _, _ = select(strategy="random", budget=str(int(kept.sum()) + 1))
  table = pq.read_table(folder / "arms/main/selection/selection.parquet")
  more = np.array(table["kept"].to_pylist())
  assert (more | ~kept).all() and millions[more].sum() > limit
