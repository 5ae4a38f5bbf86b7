"""Workdirs on a disk that is full, read-only or gone, and on two hosts.

They need root, for a file system in memory and for a host name of another process.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax.runs import checkpoint, failures
from mllm_selector_jax.runs.checkpoint import Checkpoints
from mllm_selector_jax.types import RunError
from tests import small_run
from tests.real_processes import Forked, wait_for, write_config

SETTINGS = {
  "pool.demo.rows": 60,
  "pool.demo.questions": 1,
  "seed.rows": "16",
  "seed.batch": 4,
  "seed.save_every": 1,
  "score.part_rows": 16,
  "select.control": False,
  "tune.batch": 4,
}


@contextlib.contextmanager
def mount(folder, kilobytes):
  """A file system of so many kilobytes at a folder; skips where that is forbidden."""
  folder.mkdir(exist_ok=True)
  command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
  if os.geteuid() or not shutil.which("mount") or subprocess.run(command).returncode:
    pytest.skip("only root can mount a small file system")
  try:
    yield
  finally:
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder, options):
  subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.fixture(scope="module")
def place(base, tmp_path_factory):
  """A folder with a config, and with the files of an unbroken run in `disk/work`."""
  place = tmp_path_factory.mktemp("disks")
  write_config(place / "config.py", base, **SETTINGS)
  return place


def run(place, command="run"):
  return Forked(place / "disk/work", place / "config.py", command).end(300)


def test_a_run_goes_on_whenever_a_full_disk_has_grown(place):
  with mount(place / "disk", 100_000):
    status, said = run(place)
    assert status == 0, said
    wanted = small_run.read_bytes(place / "disk/work")
  size, stages = 300, []
  with mount(place / "disk", size):
    while (ended := run(place))[0] != 0:
      status, said = ended
      assert status == 1 and "Traceback" not in said, said
      assert "Make room and give the same command again" in said, said
      stages += re.findall(r"^(\w+): making", said, re.MULTILINE)[-1:]
      size = int(1.7 * size)
      remount(place / "disk", f"size={size}k")
      assert size < 100_000
    assert len(set(stages)) > 2, stages
    found = small_run.read_bytes(place / "disk/work")
  assert sorted(found) == sorted(wanted)
  assert [name for name in wanted if found[name] != wanted[name]] == []


@contextlib.contextmanager
def mount_with_quota(folder, image):
  """A file system with quotas at a folder; skips where there is no btrfs."""
  folder.mkdir(exist_ok=True)
  with open(image, "wb") as file:
    file.truncate(256 << 20)
  made = shutil.which("mkfs.btrfs") and not os.geteuid()
  if not made or subprocess.run(["mkfs.btrfs", "-q", "-M", str(image)]).returncode:
    pytest.skip("needs root and `apt-get install btrfs-progs`")
  if subprocess.run(["mount", "-o", "loop", str(image), str(folder)]).returncode:
    pytest.skip("btrfs cannot be mounted here")
  try:
    subprocess.run(["btrfs", "quota", "enable", str(folder)], check=True)
    yield
  finally:
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_run_goes_on_whenever_a_quota_has_grown(place):
  kilobytes, said_full = 400, 0
  with mount_with_quota(place / "disk", place / "image"):
    while True:
      limit = ["btrfs", "qgroup", "limit", f"{kilobytes}K", str(place / "disk")]
      subprocess.run(limit, check=True)
      status, said = run(place)
      if status == 0:
        break
      assert status == 1 and "Traceback" not in said, said
      assert "Disk quota exceeded" in said, said
      assert "Make room and give the same command again" in said, said
      said_full += 1
      kilobytes = int(1.7 * kilobytes)
      assert kilobytes < 100_000
    assert said_full > 2
    assert (place / "disk/work/report.html").exists()


def test_a_disk_that_is_read_only_is_told_before_anything_else(place):
  with mount(place / "disk", 1000):
    (place / "disk/work").mkdir()
    remount(place / "disk", "ro")
    status, said = run(place, "check")
  assert status == 2 and "cannot be written to (Read-only file system)" in said


def test_a_disk_that_goes_away_ends_the_run_with_a_message(place):
  with mount(place / "disk", 100_000):
    status, said = run(place, "check")
    assert status == 0, said
    running = Forked(place / "disk/work", place / "config.py", "seed")
    wait_for(place / "disk/work/seed.partial/recipe.json", running)
    subprocess.run(["umount", "-l", str(place / "disk")], check=True)
    status, said = running.end(300)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place / "disk")], check=True)
  assert status == 1 and "Traceback" not in said, said
  assert "is damaged" not in said, said


def test_a_run_on_another_host_is_named(place):
  hold = (
    "import sys, time, pathlib; from mllm_selector_jax.runs import holder\n"
    "with holder.lock(pathlib.Path(sys.argv[1])):\n"
    "  print('held', flush=True); time.sleep(600)"
  )
  work = place / "hosts"
  command = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"]
  if os.geteuid() or subprocess.run([*command, "true"]).returncode:
    pytest.skip("only root can give a process another host name")
  command += [sys.executable, "-c", hold, str(work)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
    try:
      assert other.stdout.readline() == "held\n"
      status, said = Forked(work, place / "config.py", "check").end(300)
    finally:
      other.kill()
  assert status == 2
  assert re.search(r"is in use by process \d+ on host elsewhere", said)


@pytest.mark.parametrize("kilobytes", [24, 40, 90])
def test_a_checkpoint_on_a_full_disk_is_one_message(tmp_path, capfd, kilobytes):
  class Iterator:
    def get_state(self):
      return {}

  place = tmp_path / ("a folder with a long name " * 8)
  rng = np.random.default_rng(0)  # what is drawn cannot be compressed
  state = {f"array {n}": jnp.asarray(rng.normal(size=(64, 64))) for n in range(20)}
  with mount(place, kilobytes):
    with pytest.raises(RunError) as caught:
      with Checkpoints(place / "checkpoints") as checkpoints:
        checkpoints.save(1, state, Iterator(), [{"loss": 1.0}])
        checkpoints.wait()
    text, status = failures.explain(caught.value, "seed", place)
  assert status == 1 and "No space left on device" in text
  assert "Make room and give the same command again" in text
  assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("short", "short"),
    ("a" * 401 + "No space left on device {details}", "a" * 400 + " ... No space left"),
    ("a" * 399 + "No space left on device {details}", "a" * 399 + "N ... No space"),
    ("a" * 900, "a" * 400 + " ..."),
    ("", "ValueError"),
  ],
)
def test_the_cause_is_kept_when_a_message_is_cut(text, shown):
  found = checkpoint._shorten(ValueError(text))
  assert found.startswith(shown) and len(found) < 500
