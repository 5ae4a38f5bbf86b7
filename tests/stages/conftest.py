"""A tiny base, a scored pool, and a stage on a copy of it."""

import shutil
import tempfile

import pytest

from mllm_selector_jax.stages import COMMANDS
from tests import gcs, small_run
from tests.models import tiny

SIGNALS = ("loss", "accuracy", "perplexity", "el2n", "grand", "visual", "ifd")


@pytest.fixture(scope="package")
def base(tmp_path_factory):
  return tiny.make_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
  """Where a process works on what lies in a bucket; it is lost with the machine."""
  before = tempfile.tempdir
  tempfile.tempdir = str(tmp_path_factory.mktemp("scratch"))
  yield tempfile.tempdir
  tempfile.tempdir = before


@pytest.fixture(scope="module")
def bucket(scratch):
  """The URL of a bucket that is served on this machine."""
  with gcs.serve() as url:
    yield url


@pytest.fixture(scope="package")
def scored(base, tmp_path_factory):
  folder = tmp_path_factory.mktemp("run") / "work"
  settings = {"score.model": str(base), "score.signals": SIGNALS}
  with small_run.open_run(folder, base, **settings) as current:
    COMMANDS["check"](current)
    COMMANDS["score"](current)
  return folder


@pytest.fixture
def select(base, scored, tmp_path):
  """Runs a stage on a copy of the scored workdir; gives its folder."""
  folder = tmp_path / "work"
  shutil.copytree(scored, folder, symlinks=True)

  def call(stage=COMMANDS["select"], **overrides):
    settings = {"score.model": str(base), "score.signals": SIGNALS}
    settings |= {f"select.{key}": value for key, value in overrides.items()}
    settings.setdefault("select.control", False)
    with small_run.open_run(folder, base, **settings) as current:
      return stage(current), folder

  return call
