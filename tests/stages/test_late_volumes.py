"""Two hosts on a shared volume whose caches, as those of NFS, show changes late.

Each process has a mount of its own (bindfs, over FUSE) of the same folder. For two
seconds the kernel keeps what a mount has answered, names that are not there among it.
They need root and `apt-get install bindfs`.
"""

import contextlib
import os
import shutil
import subprocess

import pytest

from tests import small_run
from tests.real_processes import fork_each, write_config
from tests.stages.test_real_disks import SETTINGS

KEPT = 2  # seconds
OPTIONS = ",".join(f"{kind}_timeout={KEPT}" for kind in ("entry", "negative", "attr"))
# Logs and times, which differ between two runs.
SKIPPED = ("log.txt", ".lock", "checkpoints", "logs", "times.json")


@contextlib.contextmanager
def mount_twice(folder):
  """The folders of two hosts, both of which show `folder/served`."""
  (folder / "served").mkdir()
  places = [folder / "host0", folder / "host1"]
  if os.geteuid() or not shutil.which("bindfs"):
    pytest.skip("needs root and bindfs")
  try:
    for place in places:
      place.mkdir()
      command = ["bindfs", "-o", OPTIONS, str(folder / "served"), str(place)]
      if subprocess.run(command).returncode:
        pytest.skip("bindfs cannot mount here")
    yield places
  finally:
    for place in places:
      subprocess.run(["umount", "-l", str(place)], stderr=subprocess.DEVNULL)


def run_both(config, places):
  commands = [["run"], ["run"]]
  for status, said in [
    process.end(300) for process in fork_each("work", config, *commands, places=places)
  ]:
    assert status == 0, said


def test_a_run_ends_with_the_same_bytes_as_on_one_disk(base, tmp_path):
  config = write_config(tmp_path / "config.py", base, **SETTINGS)
  with mount_twice(tmp_path) as places:
    run_both(config, places)
    run_both(config, places)  # finds everything unchanged
  # The paths in files, of the pool that is drawn for example, are those of host 0.
  found = small_run.read_bytes(tmp_path / "served/work", SKIPPED)
  shutil.rmtree(tmp_path / "host0")
  (tmp_path / "host0").mkdir()
  run_both(config, [tmp_path / "host0"] * 2)
  wanted = small_run.read_bytes(tmp_path / "host0/work", SKIPPED)
  assert sorted(found) == sorted(wanted)
  assert [name for name in wanted if found[name] != wanted[name]] == []
