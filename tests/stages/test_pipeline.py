"""One whole run on a small pool, and what must hold around it."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.data.json_text import records
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError, RunError, Stopped
from tests import small_run
from tests.models import tiny
from tests.real_processes import Forked, start, wait_for, write_config

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  return tiny.make_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def workdir(base, tmp_path_factory):
  folder = tmp_path_factory.mktemp("run") / "work"
  with small_run.open_run(folder, base) as current:
    COMMANDS["run"](current)
  return folder


def read(path):
  return pq.read_table(path).to_pydict()


def log_since(folder, place):
  return (folder / "log.txt").read_text()[place:]


def test_every_artifact_is_there_with_its_provenance(workdir):
  folders = ["demo_pool", "seed", "scores"]
  folders += [
    f"arms/{arm}/{part}"
    for arm in ("main", "random")
    for part in ("selection", "tuned", "evaluation")
  ]
  for folder in folders:
    made = json.loads((workdir / folder / "provenance.json").read_text())
    assert made["outputs"] and made["packages"] and "config" in made, folder
  for name in ("pool", "report"):
    assert (workdir / f"{name}.provenance.json").exists()
  assert (workdir / "arms/main/tuned/hf/model.safetensors").exists()
  assert "<html" in (workdir / "report.html").read_text()
  assert "Next:" in (workdir / "log.txt").read_text()


def test_no_row_is_lost(workdir):
  pool = read(workdir / "pool.parquet")
  scored = [
    row
    for path in sorted((workdir / "scores").glob("*.parquet"))
    for row in read(path)["row"]
  ]
  ok = [row for row, s in zip(pool["row"], pool["status"], strict=True) if s == "ok"]
  assert scored == ok
  aside = [r for r, s in zip(pool["reason"], pool["status"], strict=True) if s != "ok"]
  assert len(aside) + len(ok) == 120 and all(aside)
  selection = read(workdir / "arms/main/selection/selection.parquet")
  assert selection["row"] == pool["row"] and all(selection["reason"])


def test_kept_records_are_the_pool_s_own_in_its_order(workdir):
  pool = [r.value for r in records.read_records(workdir / "demo_pool/pool.json")]
  for arm in ("main", "random"):
    folder = workdir / "arms" / arm / "selection"
    selection = read(folder / "selection.parquet")
    kept = [r for r, k in zip(selection["row"], selection["kept"], strict=True) if k]
    assert json.loads((folder / "selected.json").read_text()) == [pool[r] for r in kept]
    ranks = [selection["rank"][row] for row in kept]
    assert sorted(ranks) == list(range(len(kept)))
  summaries = [
    json.loads((workdir / "arms" / arm / "selection/summary.json").read_text())
    for arm in ("main", "random")
  ]
  assert summaries[0]["kept"] == summaries[1]["kept"] > 0
  assert abs(summaries[0]["certificate"]["gap"]) < 1e-9


def test_an_unchanged_run_keeps_everything(base, workdir):
  before, place = small_run.read_bytes(workdir), len((workdir / "log.txt").read_text())
  with small_run.open_run(workdir, base) as current:
    COMMANDS["run"](current)
  assert small_run.read_bytes(workdir) == before
  told = log_since(workdir, place)
  assert "making" not in told and told.count("unchanged, kept") == 14


def test_another_budget_redoes_only_what_follows(base, workdir, tmp_path):
  folder = tmp_path / "work"
  shutil.copytree(workdir, folder, symlinks=True)
  place = len((folder / "log.txt").read_text())
  with small_run.open_run(folder, base, **{"select.budget": "10%"}) as current:
    COMMANDS["select"](current)
  told = log_since(folder, place)
  assert "main is now arms/kl-10%-seed0; arms/kl-25%-seed0 stays" in told
  with small_run.open_run(folder, base, **{"select.budget": "10%"}) as current:
    COMMANDS["score"](current)
  assert "score: scores is unchanged, kept" in log_since(folder, place)


def test_a_damaged_part_is_found_and_made_again(base, workdir, tmp_path):
  folder = tmp_path / "work"
  shutil.copytree(workdir, folder, symlinks=True)
  part = sorted((folder / "scores").glob("*.parquet"))[0]
  wanted = part.read_bytes()
  flipped = bytearray(wanted)
  flipped[len(flipped) // 3] ^= 1
  part.write_bytes(bytes(flipped))
  with small_run.open_run(folder, base) as current:
    COMMANDS["score"](current)
  assert part.read_bytes() == wanted
  assert "is damaged" in (folder / "log.txt").read_text()


def test_stopped_scoring_goes_on_to_the_same_bytes(base, workdir, tmp_path):
  folder = tmp_path / "work"
  shutil.copytree(workdir, folder, symlinks=True)
  wanted = small_run.read_bytes(folder / "scores")
  subprocess.run(["rm", "-r", str(folder / "scores")], check=True)
  with small_run.open_run(folder, base) as current:
    checks = iter([False, True])
    current.stopped = lambda: next(checks)
    rows = int(read_table(folder / "pool.parquet").ok.sum())
    with pytest.raises(Stopped, match=rf"scoring stopped after \d+ of {rows} rows"):
      COMMANDS["score"](current)
  assert not (folder / "scores").exists()
  with small_run.open_run(folder, base) as current:
    COMMANDS["score"](current)
  assert small_run.read_bytes(folder / "scores") == wanted


def test_pool_bytes_that_changed_under_results_are_refused(base, workdir, tmp_path):
  folder = tmp_path / "work"
  shutil.copytree(workdir, folder, symlinks=True)
  pool = json.loads((folder / "demo_pool/pool.json").read_text())
  data = tmp_path / "pool.json"
  data.write_text(json.dumps(pool))
  overrides = {
    "pool.demo.rows": 0,
    "pool.data": str(data),
    "pool.images": str(folder / "demo_pool/images"),
  }
  with small_run.open_run(folder, base, **overrides) as current:
    COMMANDS["check"](current)
  data.write_text(json.dumps(pool[1:]))
  with small_run.open_run(folder, base, **overrides) as current:
    with pytest.raises(InputError, match="changed since they were checked"):
      COMMANDS["check"](current)
  with small_run.open_run(folder, base, force=True, **overrides) as current:
    COMMANDS["check"](current)


def test_a_loss_that_is_not_finite_names_rows_and_leaves_no_model(base, tmp_path):
  overrides = {"seed.learning_rate": 1e30, "seed.clip": 1e30, "seed.epochs": 3}
  with small_run.open_run(tmp_path / "work", base, **overrides) as current:
    COMMANDS["check"](current)
    with pytest.raises(RunError, match=r"row \d+ \(id demo-"):
      COMMANDS["seed"](current)
  assert not (tmp_path / "work/seed").exists()


@pytest.mark.parametrize("budget", ["0", "-3", "0.001%", "some"])
def test_a_budget_that_keeps_nothing_is_refused(base, workdir, tmp_path, budget):
  folder = tmp_path / "work"
  shutil.copytree(workdir, folder, symlinks=True)
  with small_run.open_run(folder, base, **{"select.budget": budget}) as current:
    with pytest.raises(InputError, match="budget"):
      COMMANDS["select"](current)


def test_a_budget_above_the_pool_keeps_everything_with_a_warning(
  base, workdir, tmp_path
):
  folder = tmp_path / "work"
  shutil.copytree(workdir, folder, symlinks=True)
  with small_run.open_run(folder, base, **{"select.budget": "9999"}) as current:
    COMMANDS["select"](current)
  selection = read(folder / "arms/main/selection/selection.parquet")
  pool = read(folder / "pool.parquet")
  assert sum(selection["kept"]) == pool["status"].count("ok")
  assert "all are kept" in (folder / "log.txt").read_text()


def test_signals_are_the_wanted_ones(base, workdir, tmp_path):
  folder = tmp_path / "work"
  shutil.copytree(workdir, folder, symlinks=True)
  overrides = {"score.signals": ("el2n", "accuracy")}
  with small_run.open_run(folder, base, **overrides) as current:
    COMMANDS["score"](current)
    with pytest.raises(InputError, match="needs the signal 'entropy'"):
      current.cfg.select.signal = "entropy"
      COMMANDS["select"](current)
  with small_run.open_run(folder, base, **{"score.signals": ("lss",)}) as current:
    with pytest.raises(InputError, match=r"lss .*; allowed: loss"):
      COMMANDS["score"](current)


def test_only_the_drawing_code_knows_the_truth():
  for path in (ROOT / "mllm_selector_jax").rglob("*.py"):
    if "demo" not in path.parts:
      assert "truth.parquet" not in path.read_text() or path.name == "drawn_demo.py", (
        path
      )


SAVE = {"seed.save_every": 1, "tune.save_every": 1}
KILLED_IN = (  # in the order of the run
  "demo_pool.partial/images",
  "seed.partial/checkpoints/1",
  "scores.partial/part-00000.parquet",
  "arms/kl-25%-seed0/selection.partial",
  "arms/random-25%-seed0/tuned.partial/checkpoints",
  "arms/kl-25%-seed0/evaluation.partial",
  "report.partial",
)


@pytest.fixture(scope="module")
def unbroken(base, tmp_path_factory):
  """A workdir that one process of its own made at one go, and its config."""
  place = tmp_path_factory.mktemp("unbroken")
  config = write_config(place / "config.py", base, **SAVE)
  done = start(place / "work", config)
  _, said = done.communicate()
  assert done.returncode == 0, said
  return place / "work", config


def test_a_run_that_is_killed_three_times_ends_with_the_same_bytes(unbroken):
  workdir, config = unbroken
  wanted = small_run.read_bytes(workdir)
  # The same path again, since pool.parquet names the pool's files.
  aside = workdir.with_name("aside")
  os.rename(workdir, aside)
  rng = np.random.default_rng()
  places = sorted(rng.choice(len(KILLED_IN), 3, replace=False))
  places = [KILLED_IN[place] for place in places]
  print("killed in", places)  # shown when it fails
  try:
    for place in places:
      killed = Forked(workdir, config)
      wait_for(workdir / place, killed)
      time.sleep(rng.uniform(0, 0.1))
      killed.kill()
      assert killed.end(60)[0] == -signal.SIGKILL, killed.said()
    status, said = Forked(workdir, config).end(300)
    assert status == 0, said
    found = small_run.read_bytes(workdir)
    assert set(found) == set(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
  finally:
    shutil.rmtree(workdir, ignore_errors=True)
    os.rename(aside, workdir)


def test_an_interrupted_seed_goes_on_to_the_same_bytes(unbroken, tmp_path):
  workdir, config = unbroken
  folder = tmp_path / "work"
  folder.mkdir()
  for name in ("demo_pool", "pool.parquet", "pool_summary.json"):
    subprocess.run(["cp", "-r", str(workdir / name), str(folder)], check=True)
  shutil.copy(workdir / "pool.provenance.json", folder)
  stopped = start(folder, config, "seed")
  wait_for(folder / "seed.partial/checkpoints/1", stopped)
  stopped.send_signal(signal.SIGINT)
  _, said = stopped.communicate()
  assert stopped.returncode in (130, 0), said
  if stopped.returncode:
    assert "resumes from" in said and "Traceback" not in said
    assert not (folder / "seed").exists()
  done = start(folder, config, "seed")
  assert done.wait() == 0, done.stderr.read()
  assert small_run.read_bytes(folder / "seed") == small_run.read_bytes(workdir / "seed")


def test_a_stage_without_what_it_needs_says_what_to_run(base, tmp_path):
  for stage in ("seed", "score", "select", "tune", "evaluate", "report", "plan"):
    with small_run.open_run(tmp_path / "work", base) as current:
      with pytest.raises(InputError, match="run `mllm-selector"):
        COMMANDS[stage](current)


def test_scores_do_not_depend_on_batching(base, workdir, tmp_path):
  folder = tmp_path / "work"
  shutil.copytree(workdir, folder, symlinks=True)
  from mllm_selector_jax.scoring.score_table import read_scores

  wanted = read_scores(folder / "scores")
  wanted_embeddings = small_run.read_embeddings(wanted)
  subprocess.run(["rm", "-r", str(folder / "scores")], check=True)
  overrides = {
    "score.row_length": 512,
    "score.batch_rows": 1,
    "score.part_rows": 1000,
    "score.threads": 0,
    "mesh.data": 2,
    "mesh.fsdp": 4,
  }
  with small_run.open_run(folder, base, devices=8, **overrides) as current:
    COMMANDS["score"](current)
  found = read_scores(folder / "scores")
  np.testing.assert_array_equal(found.row, wanted.row)
  for name in ("loss", "loss_sum", "entropy", "el2n", "grand", "perplexity"):
    np.testing.assert_allclose(
      found.signal(name), wanted.signal(name), rtol=1e-5, err_msg=name
    )
  np.testing.assert_allclose(
    small_run.read_embeddings(found), wanted_embeddings, atol=2e-5
  )
