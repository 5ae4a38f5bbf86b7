import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest

from mllm_selector_jax.runs import artifacts, holder
from mllm_selector_jax.types import InputError, RunError


def recipe(budget="5%", pool="a"):
  return artifacts.Recipe("select", {"select": {"budget": budget}}, {"pool": pool}, 0)


def make(artifact, wanted, text="x"):
  with artifact.making(wanted) as folder:
    for name in artifact.files or ("data.txt",):
      artifacts.write_text(folder / name, text)


@pytest.fixture(params=["folder", "files", "bare"])
def artifact(request, tmp_path):
  files = ("pool.txt", "summary.txt") if request.param == "files" else ()
  bare = request.param == "bare"
  return artifacts.Artifact(tmp_path / "pool", files, bare=bare)


def output(artifact):
  if artifact.files:
    return artifact.path.with_name(artifact.files[0])
  return artifact.path / "data.txt"


def test_made_then_current(artifact):
  assert artifact.why_stale(recipe()) == ["not made yet"]
  make(artifact, recipe())
  assert artifact.why_stale(recipe()) == []
  assert not artifact.partial.exists()
  made = artifact.provenance()
  assert made["packages"]["jax"] and made["config"] == {"select": {"budget": "5%"}}


def test_says_what_changed(artifact):
  make(artifact, recipe())
  assert artifact.why_stale(recipe("20%", "b")) == [
    "select.budget '5%' -> '20%'",
    "pool changed",
  ]


def test_damage_and_loss_are_found(artifact):
  make(artifact, recipe())
  output(artifact).write_text("y")
  assert "damaged" in artifact.why_stale(recipe())[0]
  output(artifact).unlink()
  assert "is gone" in artifact.why_stale(recipe())[0]


def test_the_old_artifact_stays_until_the_new_one_is_whole(artifact):
  make(artifact, recipe(), "old")
  with pytest.raises(KeyError), artifact.making(recipe("20%")) as folder:
    artifacts.write_text(folder / "half.txt", "new")
    raise KeyError
  assert output(artifact).read_text() == "old"
  assert artifact.why_stale(recipe()) == []


def test_an_interrupted_making_goes_on_only_with_the_same_recipe(artifact):
  for wanted, kept in ((recipe(), True), (recipe("20%"), False)):
    with pytest.raises(KeyError), artifact.making(recipe()) as folder:
      artifacts.write_text(folder / "part", "done")
      raise KeyError
    with pytest.raises(KeyError), artifact.making(wanted) as folder:
      assert (folder / "part").exists() == kept
      raise KeyError


def test_equal_contents_have_equal_digests(artifact, tmp_path):
  make(artifact, recipe())
  first = artifact.digest()
  make(artifact, recipe("20%"))
  assert artifact.digest() == first
  make(artifact, recipe("20%", "b"), "other")
  assert artifact.digest() != first


def test_a_swap_cut_between_its_renames_is_ended(tmp_path):
  artifact = artifacts.Artifact(tmp_path / "seed")
  make(artifact, recipe(), "old")
  os.replace(artifact.path, tmp_path / "seed.old")
  assert artifact.why_stale(recipe()) == []
  make(artifact, recipe("20%"), "new")
  os.replace(artifact.path, artifact.partial)
  make_old = tmp_path / "seed.old"
  make_old.mkdir()
  assert artifact.why_stale(recipe("20%")) == []
  assert not make_old.exists()


def test_a_bare_folder_holds_its_outputs_alone_whenever_it_is_cut_off(tmp_path):
  artifact = artifacts.Artifact(tmp_path / "llava", bare=True)
  make(artifact, recipe(), "old")
  assert [path.name for path in artifact.path.iterdir()] == ["data.txt"]
  assert artifact.marker == tmp_path / "llava.provenance.json"
  old = artifact.marker.read_bytes()
  make(artifact, recipe("20%"), "new")
  # As it stands after the renames and before the marker's own.
  os.replace(artifact.marker, artifact.path / artifacts.MARKER)
  artifact.marker.write_bytes(old)
  assert artifact.why_stale(recipe("20%")) == []
  assert [path.name for path in artifact.path.iterdir()] == ["data.txt"]


def test_a_full_disk_is_one_message_and_leaves_the_old_file(tmp_path):
  path = tmp_path / "file"
  artifacts.write_text(path, "old")
  script = (
    "import resource, signal, pathlib, sys\n"
    "from mllm_selector_jax import types\n"
    "from mllm_selector_jax.runs import artifacts\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    "try: artifacts.write_text(pathlib.Path(sys.argv[1]), 'x' * 5000)\n"
    "except types.RunError as error: print(error)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", script, str(path)], capture_output=True, text=True
  )
  assert "5,000 bytes could not be written" in done.stdout, done.stderr
  assert str(path) in done.stdout
  assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
  assert issubclass(RunError, RuntimeError)


def test_a_second_process_is_told_who_holds_the_workdir(tmp_path):
  script = (
    "import pathlib, sys\n"
    "from mllm_selector_jax.runs import holder\n"
    "with holder.lock(pathlib.Path(sys.argv[1])): print('held')\n"
  )
  command = [sys.executable, "-c", script, str(tmp_path)]
  with holder.lock(tmp_path):
    done = subprocess.run(command, capture_output=True, text=True)
    assert "InputError" in done.stderr and f"process {os.getpid()}" in done.stderr
  assert subprocess.run(command, capture_output=True, text=True).stdout == "held\n"


@pytest.mark.parametrize("name", [".nfs000000000004a1b200000001", ".fuse_hidden0000a"])
def test_a_deleted_file_that_is_open_is_no_output(artifact, name):
  if artifact.files:
    return
  with artifact.making(recipe()) as folder:
    artifacts.write_text(folder / "data.txt", "x")
    artifacts.write_text(folder / name, "deleted")
  (artifact.path / name).unlink()  # when it is closed
  assert artifact.why_stale(recipe()) == []


def refuse_locks(number):
  def flock(file, flags):
    raise OSError(number, os.strerror(number))

  return flock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, number):
  monkeypatch.setattr(fcntl, "flock", refuse_locks(number))
  with holder.lock(tmp_path) as warning:
    assert f"has no locks ({os.strerror(number)})" in warning


def test_a_lock_that_fails_is_not_taken_for_one_that_is_held(tmp_path, monkeypatch):
  monkeypatch.setattr(fcntl, "flock", refuse_locks(errno.EIO))
  with pytest.raises(InputError, match=r"cannot be locked \(Input/output error\)"):
    with holder.lock(tmp_path):
      pass


def test_a_missing_artifact_says_what_to_do(artifact):
  with pytest.raises(InputError, match="is not there"):
    artifact.digest()


def test_a_torn_marker_counts_as_none(artifact):
  make(artifact, recipe())
  artifact.marker.write_text(json.dumps({"config": {}})[:5])
  assert artifact.why_stale(recipe()) == ["not made yet"]
