"""The pool that the config asks for is the one that is drawn."""

import json

import pyarrow.parquet as pq

from mllm_selector_jax.configs import demo
from mllm_selector_jax.inputs.drawn_demo import draw
from mllm_selector_jax.runs import context


def test_the_shares_of_the_config_are_those_of_the_pool(tmp_path):
  cfg = demo.get_config()
  cfg.pool.demo.rows, cfg.pool.demo.questions = 400, 2
  cfg.pool.demo.wrong, cfg.pool.demo.misaligned = 0.3, 0.1
  cfg.pool.demo.duplicates = 0.2
  with context.open_run(cfg, str(tmp_path)) as run:
    draw(run)
  truth = pq.read_table(tmp_path / "demo_pool" / "truth.parquet").to_pydict()
  repeats = sum(of is not None for of in truth["duplicate_of"])
  assert 75 <= repeats <= 80  # the first of a task has none before it
  assert sum(truth["misaligned"]) == 40
  assert 120 <= sum(truth["wrong"]) <= 200  # and the copies of such rows
  counts = json.loads((tmp_path / "demo_pool" / "counts.json").read_text())
  assert counts["duplicates"] == repeats
