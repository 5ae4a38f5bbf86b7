"""Preparing in real processes, stopped and killed: it goes on to the same bytes."""

import shutil
import signal
import time

import numpy as np
import pytest

from tests import small_run
from tests.models import tiny
from tests.real_processes import Forked, start, write_config

FILES = 60
OVERRIDES = {
  "pool.demo.rows": 8 * FILES,
  "pool.demo.questions": 1,
  "prepare.shard_rows": 8,
  "prepare.workers": 2,
}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
  """A workdir whose pool one worker prepared, what it wrote, and a config of two."""
  place = tmp_path_factory.mktemp("unbroken")
  base = tiny.make_base(place / "base")
  config = write_config(place / "config.py", base, **OVERRIDES)
  alone = write_config(place / "one.py", base, **{**OVERRIDES, "prepare.workers": 1})
  status, said = Forked(place / "work", alone, "prepare").end(120)
  assert status == 0, said
  return place / "work", small_run.read_bytes(place / "work/prepared"), config


def wait_for_files(folder, count, process):
  """Waits until so many files of the data set are whole; how many there are."""
  while True:
    found = len(list((folder / "prepared.partial").glob("*-of-*")))
    if found >= count:
      return found
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.002)


@pytest.mark.parametrize(
  ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_it_goes_on_to_the_same_bytes(unbroken, number, status):
  folder, wanted, config = unbroken
  shutil.rmtree(folder / "prepared", ignore_errors=True)
  shutil.rmtree(folder / "prepared.partial", ignore_errors=True)
  broken = start(folder, config, "prepare")
  wait_for_files(folder, int(np.random.default_rng().integers(1, FILES // 3)), broken)
  broken.send_signal(number)
  # Ends when nobody holds the pipe: no worker outlives the first process.
  _, said = broken.communicate(timeout=60)
  assert broken.returncode == status, said
  assert "Traceback" not in said and not (folder / "prepared").exists()
  assert number == signal.SIGKILL or "The same command resumes" in said
  assert list((folder / "prepared.partial").glob("*-of-*"))
  status, said = Forked(folder, config, "prepare").end(120)
  assert status == 0, said
  assert small_run.read_bytes(folder / "prepared") == wanted
