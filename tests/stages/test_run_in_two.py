"""A whole run in two real processes, one of them killed, gives what one gives."""

import json
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.scoring.table import read_scores
from tests.models import tiny
from tests.real_processes import Forked, fork_many, wait_for, write_config

OVERRIDES = {
  "pool.demo.rows": 60,
  "pool.demo.questions": 1,
  "seed.rows": "24",
  "seed.batch": 6,
  "seed.save_every": 1,
  "tune.batch": 5,
  "score.batch_rows": 4,
  "select.control": False,
  "evaluate.batch": 7,
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """A workdir that one process made, and its config."""
  place = tmp_path_factory.mktemp("alone")
  base = tiny.make_base(place / "base")
  config = write_config(place / "config.py", base, **OVERRIDES)
  status, said = Forked(place / "work", config).end(120)
  assert status == 0, said
  return place / "work", config


def read_losses(folder):
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [[json.loads(line)[name] for name in ("loss", "grad_norm")] for line in lines]


def read_kept(folder):
  table = pq.read_table(folder / "arms/main/selection/selection.parquet")
  return set(table.filter(table["kept"])["row"].to_pylist())


def read_results(folder):
  place = folder / "arms/main/evaluation"
  lines = (place / "predictions.jsonl").read_text().splitlines()
  results = json.loads((place / "results.json").read_text())
  return results, {(one["id"], one["prediction"]) for one in map(json.loads, lines)}


def test_two_processes_give_what_one_gives_though_one_was_killed(alone, tmp_path):
  wanted, config = alone
  found = tmp_path / "work"
  victim = int(np.random.default_rng().integers(2))
  print("killed: process", victim)  # shown when it fails
  pair = fork_many(2, found, config)
  wait_for(found / "seed.partial/checkpoints/2", *pair)
  pair[victim].kill()
  assert pair[victim].end(10)[0] == -signal.SIGKILL
  status, said = pair[1 - victim].end(60)
  assert status not in (0, 2), said
  assert "another process of this run is gone" in said or "another task died" in said
  ended = [process.end(120) for process in fork_many(2, found, config)]
  assert [status for status, _ in ended] == [0, 0], ended

  for name in ("seed", "arms/main/tuned"):
    losses = read_losses(found / name)
    np.testing.assert_allclose(losses, read_losses(wanted / name), rtol=1e-5)
    assert len(losses) > 2
  scores = [read_scores(folder / "scores") for folder in (wanted, found)]
  np.testing.assert_array_equal(scores[1].row, scores[0].row)
  for name in ("loss", "loss_sum"):
    np.testing.assert_allclose(*(own.signal(name) for own in scores), rtol=1e-5)
  kept = read_kept(wanted)
  assert len(kept & read_kept(found)) >= 0.999 * len(kept) > 0
  (results, answers), (results_wanted, answers_wanted) = map(
    read_results, (found, wanted)
  )
  assert answers == answers_wanted and results == results_wanted
