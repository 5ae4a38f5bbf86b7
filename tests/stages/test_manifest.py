"""SHA256SUMS: what sha256sum says of it, and what a run states of its code."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

import mllm_selector_jax
from mllm_selector_jax.pipeline import manifest
from mllm_selector_jax.runs import artifacts, own_code
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run

PACKAGE = pathlib.Path(mllm_selector_jax.__file__).parent
SETTINGS = {"pool.demo.rows": 60, "pool.demo.questions": 1}


@pytest.fixture
def work(base, tmp_path):
  folder = tmp_path / "work"
  with small_run.open_run(folder, base, **SETTINGS) as run:
    COMMANDS["check"](run)
    odd = artifacts.Artifact(run.workdir.arms / "a" / "exports" / "odd", bare=True)
    with odd.making(run.recipe("export-selection", {}, {})) as partial:
      (partial / "back\\slash and\nbreak.png").write_bytes(b"image")
    begun = artifacts.Artifact(run.workdir.path / "seed").partial / "old"
    begun.mkdir(parents=True)
    (begun / artifacts.MARKER).write_text("{}")  # would fail if it were read
    COMMANDS["manifest"](run)
  return folder


def check(work):
  """What sha256sum says of every file."""
  command = ["sha256sum", "-c", "--quiet", "--strict", manifest.NAME]
  return subprocess.run(command, cwd=work, capture_output=True, text=True)


def test_sha256sum_takes_it_and_finds_what_was_changed(work):
  done = check(work)
  assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
  lines = (work / manifest.NAME).read_text().splitlines()
  listed = sum(not line.startswith("#") for line in lines)
  made = [json.loads(path.read_text()) for path in work.rglob(f"*{artifacts.MARKER}")
          if "partial" not in str(path)]  # fmt: skip
  assert listed == sum(1 + len(each["outputs"]) for each in made) > 10
  (work / "pool.parquet").write_bytes(b"other rows")
  done = check(work)
  assert done.returncode == 1 and done.stdout == "pool.parquet: FAILED\n"


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="OpenSSH is not installed")
def test_a_key_of_openssh_signs_it(work, tmp_path):
  key, sums = tmp_path / "key", work / manifest.NAME

  def call(*arguments, read=None):
    text = read.read_bytes() if read else None
    return subprocess.run(["ssh-keygen", *map(str, arguments)], input=text).returncode

  assert call("-q", "-t", "ed25519", "-N", "", "-f", key) == 0
  assert call("-Y", "sign", "-q", "-f", key, "-n", "file", sums) == 0
  allowed = tmp_path / "allowed"
  allowed.write_text("me " + key.with_suffix(".pub").read_text())
  verify = ("-Y", "verify", "-q", "-f", allowed, "-I", "me", "-n", "file")
  verify += ("-s", f"{sums}.sig")
  assert call(*verify, read=sums) == 0
  sums.write_text(sums.read_text().replace("pool.parquet", "pool.other"))
  assert call(*verify, read=sums) != 0


def test_an_empty_workdir_is_refused(base, tmp_path):
  with small_run.open_run(tmp_path / "work", base) as run:
    with pytest.raises(InputError, match="holds no complete artifact"):
      COMMANDS["manifest"](run)


def test_provenance_states_the_code(work):
  stated = json.loads((work / "pool.provenance.json").read_text())["code"]
  assert stated == own_code.describe_code()
  assert len(stated["sha256"]) == 64
  if (PACKAGE.parent / ".git").exists() and shutil.which("git"):
    assert len(stated["commit"]) == 40


def test_the_hash_tells_code_that_was_changed(tmp_path, monkeypatch):
  shutil.copytree(PACKAGE / "runs", tmp_path / "runs")
  monkeypatch.setattr(own_code, "_ROOT", tmp_path)
  own_code.hash_code.cache_clear()
  before = own_code.hash_code()
  own_code.hash_code.cache_clear()
  with open(tmp_path / "runs/peers.py", "a") as file:
    file.write(os.linesep)
  assert own_code.hash_code() != before
  own_code.hash_code.cache_clear()


def test_the_commit_of_an_installation_is_read_from_what_pip_notes(
  tmp_path, monkeypatch
):
  noted = json.dumps({"url": "u", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}})

  class Distribution:
    def read_text(self, name):
      return noted if name == "direct_url.json" else None

  monkeypatch.setattr(own_code, "_ROOT", tmp_path / "site-packages" / "package")
  monkeypatch.setattr(
    own_code.importlib.metadata, "distribution", lambda name: Distribution()
  )
  assert own_code._find_commit() == "c" * 40
