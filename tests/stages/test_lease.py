"""Two runs in one bucket, of which one holds the workdir."""

import json
import subprocess
import tempfile
import threading
import time

import pytest
from etils import epath

from mllm_selector_jax.runs import lease
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError, RunError
from tests import small_run


def note(work, **changed):
  """Leaves the note of a run on another host."""
  now = {"holder": "process 7 on host elsewhere", "machine": "elsewhere", "process": 7}
  now |= {"run": "a", "beat": 3, "time": time.time()} | changed
  (epath.Path(work) / lease.NAME).write_text(json.dumps(now))


def read_log(current):
  return (current.workdir.path / "log.txt").read_text()


@pytest.mark.parametrize("left", ["old", "torn", "of this machine"])
def test_the_note_of_a_run_that_was_killed_is_no_obstacle(bucket, base, left):
  work = f"{bucket}/{left}"
  if left == "old":
    note(work, time=time.time() - 2 * lease.OLD)
  elif left == "torn":
    (epath.Path(work) / lease.NAME).write_text("process 7 on host elsewhere")
  else:
    with subprocess.Popen(["true"]) as gone:
      gone.wait()
    note(work, machine=lease._name_machine(), process=gone.pid)
  begun = time.monotonic()
  with small_run.open_run(work, base) as current:
    said = read_log(current)
    assert json.loads((epath.Path(work) / lease.NAME).read_text())["beat"] == 0
  assert "was last used by process 7 on host elsewhere" in said
  assert "waiting" not in said and time.monotonic() - begun < 30
  assert not (epath.Path(work) / lease.NAME).exists()


def test_a_recent_note_without_a_sign_of_life_is_waited_for(bucket, base, monkeypatch):
  monkeypatch.setattr(lease, "QUIET", 1.0)
  work = f"{bucket}/quiet"
  note(work)
  with small_run.open_run(work, base) as current:
    said = read_log(current)
  assert "waiting 1 s for a sign of it" in said
  assert "gives no sign of life" in said


def test_a_run_that_ends_meanwhile_is_not_told_as_killed(bucket, base, monkeypatch):
  monkeypatch.setattr(lease, "QUIET", 10.0)
  work = f"{bucket}/ends"
  note(work)
  threading.Timer(1.5, (epath.Path(work) / lease.NAME).unlink).start()
  with small_run.open_run(work, base) as current:
    said = read_log(current)
  assert "waiting 10 s for a sign of it" in said
  assert "gives no sign of life" not in said


def test_a_second_run_in_the_bucket_is_refused(bucket, base, monkeypatch):
  monkeypatch.setattr(lease, "BEAT", 0.2)
  monkeypatch.setattr(lease, "_is_gone", lambda found: False)
  work = f"{bucket}/two"
  with small_run.open_run(work, base):
    monkeypatch.setattr(tempfile, "tempdir", f"{tempfile.tempdir}/other host")
    with pytest.raises(InputError, match=r"is in use by process \d+ on host"):
      with small_run.open_run(work, base):
        pass
    assert (epath.Path(work) / lease.NAME).exists()
  assert not (epath.Path(work) / lease.NAME).exists()


def test_a_run_that_was_taken_over_ends_and_leaves_the_other_s_files(
  bucket, base, monkeypatch
):
  monkeypatch.setattr(lease, "BEAT", 0.2)
  work = f"{bucket}/taken"
  with pytest.raises(RunError, match="taken over by process 7 on host elsewhere"):
    with small_run.open_run(work, base) as current:
      note(work)
      time.sleep(2)
      COMMANDS["check"](current)
  names = [path.name for path in epath.Path(work).iterdir()]
  assert lease.NAME in names and "pool.parquet" not in names
