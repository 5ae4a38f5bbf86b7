"""Training in real processes, killed and stopped: it goes on to the same result."""

import json
import shutil
import signal
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.scoring.score_table import read_scores
from tests import small_run
from tests.models import tiny
from tests.real_processes import Forked, fork_many, write_config

OVERRIDES = {
  "pool.demo.rows": 60,
  "pool.demo.questions": 1,
  "seed.rows": "24",
  "seed.batch": 3,
  "seed.save_every": 1,
  "tune.batch": 1,
  "tune.epochs": 2,
  "tune.save_every": 1,
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


def wait_for_step(artifact, step, *processes):
  """Waits until a checkpoint of that step or a later one is whole."""
  folder = artifact.with_name(f"{artifact.name}.partial") / "checkpoints"
  while True:
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    if any(name.isdigit() and int(name) >= step for name in names):
      return
    for process in processes:
      assert process.poll() is None, process.said()
    time.sleep(0.002)


def copy_but(source, folder, artifact):
  """The workdir of a run that has not come to this artifact yet."""
  shutil.copytree(source, folder, symlinks=True)
  shutil.rmtree(folder / artifact)


@pytest.mark.parametrize("stage", ["seed", "tune"])
def test_sigterm_saves_and_leaves_with_143(alone, tmp_path, stage):
  source, config = alone
  artifact = {"seed": "seed", "tune": "arms/main/tuned"}[stage]
  folder = tmp_path / "work"
  copy_but(source, folder, artifact)
  stopped = Forked(folder, config, stage)
  wait_for_step(folder / artifact, 1, stopped)
  stopped.send(signal.SIGTERM)
  status, said = stopped.end(30)
  assert status == 143, said
  assert "Stopped: training stopped after step" in said and "resumes" in said
  assert "Traceback" not in said and not (folder / artifact).exists()
  status, said = Forked(folder, config, stage).end(60)
  assert status == 0, said
  assert small_run.read_bytes(folder / artifact) == small_run.read_bytes(
    source / artifact
  )


def test_a_training_killed_three_times_ends_with_the_same_bytes(alone, tmp_path):
  source, config = alone
  folder, rng = tmp_path / "work", np.random.default_rng()
  copy_but(source, folder, "seed")
  steps = sorted(rng.choice(np.arange(1, 7), 3, replace=False))
  print("killed after the steps", steps)  # shown when it fails
  for step in steps:
    run = Forked(folder, config, "seed")
    wait_for_step(folder / "seed", step, run)
    time.sleep(rng.uniform(0, 0.02))
    run.kill()
    assert run.end(10)[0] == -signal.SIGKILL, run.said()
  status, said = Forked(folder, config, "seed").end(60)
  assert status == 0, said
  assert small_run.read_bytes(folder / "seed") == small_run.read_bytes(source / "seed")


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


def test_two_processes_give_what_one_gives_though_killed_and_stopped(alone, tmp_path):
  wanted, config = alone
  found = tmp_path / "work"
  one, other = np.random.default_rng().permutation(2)
  print("killed: process", one)  # shown when it fails

  pair = fork_many(2, found, config)
  wait_for_step(found / "seed", 2, *pair)
  pair[one].kill()
  assert pair[one].end(10)[0] == -signal.SIGKILL
  status, said = pair[other].end(60)
  assert status not in (0, 2), said
  assert "another process of this run is gone" in said or "another task died" in said

  pair = fork_many(2, found, config)
  wait_for_step(found / "arms/main/tuned", 1, *pair)
  pair[one].send(signal.SIGTERM)  # only one, and both leave
  ended = [process.end(60) for process in pair]
  assert [status for status, _ in ended] == [143, 143], ended
  assert "Stopped: training stopped after step" in ended[0][1]

  ended = [process.end(120) for process in fork_many(2, found, config)]
  assert [status for status, _ in ended] == [0, 0], ended
  for name in ("seed", "arms/main/tuned"):
    losses = read_losses(found / name)
    np.testing.assert_allclose(losses, read_losses(wanted / name), rtol=1e-5)
    assert len(losses) > 5
  scores = [read_scores(folder / "scores") for folder in (wanted, found)]
  np.testing.assert_array_equal(scores[1].row, scores[0].row)
  for name in ("loss", "loss_sum"):
    np.testing.assert_allclose(*(own.signal(name) for own in scores), rtol=1e-5)
  kept = read_kept(wanted)
  assert len(kept & read_kept(found)) >= 0.999 * len(kept) > 0
  assert read_results(found) == read_results(wanted)
