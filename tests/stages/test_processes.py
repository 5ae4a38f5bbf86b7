"""Real processes, killed: scoring goes on to the same table, alone or in a pair."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mllm_selector_jax.runs import processes
from mllm_selector_jax.scoring.score_table import read_scores
from mllm_selector_jax.types import InputError
from tests import small_run
from tests.models import tiny
from tests.real_processes import (
  ROOT,
  Forked,
  fork_many,
  free_port,
  wait_for,
  write_config,
)


def overrides(base):
  return {"score.model": str(base), "score.part_rows": 16, "score.batch_rows": 4}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
  """A workdir that one process has scored with the base, and the base."""
  place = tmp_path_factory.mktemp("processes")
  base = tiny.make_base(place / "base")
  config = write_config(place / "config.py", base, **overrides(base))
  for command in ("check", "score"):
    status, said = Forked(place / "one", config, command).end(120)
    assert status == 0, said
  return place / "one", base


def copy_pool(source, folder):
  folder.mkdir()
  shutil.copytree(source / "demo_pool", folder / "demo_pool")
  for path in source.glob("pool*"):
    shutil.copy(path, folder)


def test_two_processes_give_what_one_gives_though_one_was_killed(scored, tmp_path):
  source, base = scored
  config = write_config(tmp_path / "config.py", base, **overrides(base))
  folder = tmp_path / "two"
  copy_pool(source, folder)
  victim = int(np.random.default_rng().integers(2))
  print("killed: process", victim)  # shown when it fails
  pair = fork_many(2, folder, config, "score")
  wait_for(folder / "scores.partial/passes/main/part-00000.json", *pair)
  pair[victim].kill()
  assert pair[victim].end(10)[0] == -signal.SIGKILL
  status, said = pair[1 - victim].end(60)
  assert status not in (0, 2), said
  assert "another process of this run is gone" in said or "another task died" in said
  ended = [process.end(120) for process in fork_many(2, folder, config, "score")]
  assert [status for status, _ in ended] == [0, 0], ended
  wanted, found = read_scores(source / "scores"), read_scores(folder / "scores")
  np.testing.assert_array_equal(found.row, wanted.row)  # the same rows once each
  assert found.columns.keys() == wanted.columns.keys()
  for name, values in wanted.columns.items():
    np.testing.assert_allclose(found.columns[name], values, rtol=1e-5, err_msg=name)
  np.testing.assert_allclose(
    small_run.read_embeddings(found), small_run.read_embeddings(wanted), atol=2e-5
  )


def test_scoring_killed_three_times_ends_with_the_same_bytes(scored, tmp_path):
  source, base = scored
  config = write_config(tmp_path / "config.py", base, **overrides(base))
  folder, rng = tmp_path / "work", np.random.default_rng()
  copy_pool(source, folder)
  passes = folder / "scores.partial/passes/main"
  summary = json.loads((source / "scores/summary.json").read_text())
  parts = summary["passes"]["main"]["parts"]
  notes = [passes, *(passes / f"part-{n:05d}.json" for n in range(parts - 1))]
  places = sorted(rng.choice(len(notes), 3, replace=False))
  print("killed after", [notes[place].name for place in places])  # where it fails
  for place in places:
    run = Forked(folder, config, "score")
    wait_for(notes[place], run)
    time.sleep(rng.uniform(0, 0.02))
    run.kill()
    assert run.end(10)[0] == -signal.SIGKILL, run.said()
  status, said = Forked(folder, config, "score").end(120)
  assert status == 0, said
  assert small_run.read_bytes(folder / "scores") == small_run.read_bytes(
    source / "scores"
  )


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (("127.0.0.1:1", None, None), "--num_processes=N and --process_id=I are missing"),
    ((None, 2, 0), "--coordinator=HOST:PORT is missing"),
    (("127.0.0.1", 2, 0), "give HOST:PORT"),
    (("127.0.0.1:1", 2, 2), "numbered from 0 to 1"),
    (("127.0.0.1:1", 0, 0), "numbered from 0 to 0"),
    (("auto", 2, 0), "takes neither --num_processes nor"),
  ],
)
def test_flags_that_do_not_fit_are_named(flags, words):
  with pytest.raises(InputError, match=words):
    processes.join(*flags)


def test_a_port_that_is_taken_is_refused():
  with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(InputError, match=f"cannot listen on port {port} "):
      processes.join(f"127.0.0.1:{port}", 2, 0)
  with pytest.raises(InputError, match="cannot listen on port 99999"):
    processes.join("127.0.0.1:99999", 2, 0)


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_whose_others_do_not_come_ends_with_a_message(number):
  code = (
    "from mllm_selector_jax.runs import processes;"
    f"processes.join('127.0.0.1:{free_port()}', 2, {number}, timeout=1)"
  )
  ended = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
  )
  assert ended.returncode == 1, ended.stderr
  (said,) = ended.stderr.strip().splitlines()
  assert f"after 1 s process {number} of 2 did not meet the others" in said


def test_devices_that_a_task_was_not_given_are_missed():
  processes.check_devices(None)
  processes.check_devices(jax.device_count())
  with pytest.raises(
    InputError, match=f"num_devices=16, but {jax.device_count()} were"
  ):
    processes.check_devices(16)
