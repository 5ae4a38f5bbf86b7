"""A stage that was broken off and is begun with other settings: told, and kept."""

import contextlib
import shutil

import pytest

from mllm_selector_jax.data.pool import pool_check, pool_table
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import Stopped
from tests import small_run

SETTINGS = {
  "pool.demo.rows": 60,
  "pool.demo.questions": 1,
  "seed.rows": "24",
  "seed.batch": 4,
  "align.rows": "24",
  "align.batch": 4,
  "tune.batch": 3,
  "score.part_rows": 16,
  "score.batch_rows": 4,
  "select.control": False,
  "prepare.shard_rows": 8,
  "prepare.workers": 1,
}
# Each stage that resumes: its command, what it makes, at which progress it is stopped,
# a setting changed from and to, what is told, and settings of its own.
CASES = {
  "check": (
    COMMANDS["check"],
    "pool",
    3,
    "pool.max_pixels",
    9_000_000,
    "checked rows",
    {},
  ),
  "prepare": (COMMANDS["prepare"], "prepared", 4, "prepare.shard_rows", 9, "files", {}),
  "align": (
    COMMANDS["align"],
    "aligned",
    2,
    "align.batch",
    5,
    "checkpoint of step 2",
    {},
  ),
  "seed": (COMMANDS["seed"], "seed", 2, "seed.batch", 5, "checkpoint of step 2", {}),
  "score": (
    COMMANDS["score"],
    "scores",
    3,
    "score.signals",
    "loss",
    "scored parts",
    {},
  ),
  "tune": (
    *(COMMANDS["tune"], "arms/main/tuned", 2, "tune.learning_rate", 0.5),
    *("checkpoint of step 2", {}),
  ),
  "doubts": (
    *(COMMANDS["select"], "rounds/fold-1/seed", 2, "seed.batch", 5),
    *("checkpoint of step 2", {"select.bound": "thorough"}),
  ),
}

TITLES = {*CASES, "tune kl-25%-seed0", "seed fold-1"} - {"check"}  # of what is stopped


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
  """A workdir with all that the stages begin with."""
  folder = tmp_path_factory.mktemp("finished") / "work"
  with open_run(folder, base) as current:
    for stage in (COMMANDS["check"], COMMANDS["score"], COMMANDS["select"]):
      stage(current)
  return folder


def open_run(folder, base, **settings):
  given = {**SETTINGS, "score.model": str(base), **settings}
  return small_run.open_run(folder, base, **given)


def make(folder, base, stage, settings, stop_at=None, titles=TITLES):
  """Runs the stage, stopped at an update of its progress; what was said and done."""
  said, done = [], []
  with open_run(folder, base, **settings) as current:
    say, progress = current.console.say, current.progress

    @contextlib.contextmanager
    def watched(title, *arguments, **options):
      with progress(title, *arguments, **options) as update:

        def updated(count, total):
          if title in titles:
            done.append(count)
          if len(done) == stop_at:
            current.stop()
          update(count, total)

        yield updated

    current.progress = watched
    current.console.say = lambda text: (said.append(text), say(text))
    with pytest.raises(Stopped) if stop_at else contextlib.nullcontext():
      stage(current)
  return "\n".join(said), done


@pytest.mark.parametrize("name", CASES)
def test_it_is_told_kept_and_gone_on_with(base, finished, tmp_path, monkeypatch, name):
  stage, artifact, stop_at, key, value, words, own = CASES[name]
  monkeypatch.setattr(pool_table, "GROUP_ROWS", 16)  # of a part of a check
  monkeypatch.setattr(pool_check, "BLOCK_ROWS", 8)
  folder = tmp_path / "work"
  partial = (folder / artifact).with_name(f"{artifact.split('/')[-1]}.partial")
  begin(finished, folder, partial)
  titles = {"check"} if name == "check" else TITLES
  make(folder, base, stage, own)
  wanted = read(folder, artifact)

  begin(finished, folder, partial)
  said, _ = make(folder, base, stage, own, stop_at, titles)
  assert partial.exists() and "begun with other" not in said
  begun = small_run.read_bytes(partial, skip=())
  said, _ = make(folder, base, stage, {**own, key: value}, stop_at, titles)
  assert "was begun with other settings" in said and words in said, said
  short = key.split(".")[-1]
  assert f"{short} " in said and f" -> {describe(value)}" in said, said
  (aside,) = partial.parent.glob(f"{partial.stem}.*.partial")
  assert small_run.read_bytes(aside, skip=()) == begun
  assert partial.exists()

  said, done = make(folder, base, stage, own, titles=titles)
  assert "was begun with other settings" in said  # those of the other one
  assert done[0] > 0  # nothing of the first is done again
  assert not list(partial.parent.glob(f"{partial.stem}*.partial"))
  assert read(folder, artifact) == wanted


def begin(finished, folder, partial):
  """A workdir without what the stage makes."""
  shutil.rmtree(folder, ignore_errors=True)
  shutil.copytree(finished, folder, symlinks=True)
  for path in partial.parent.glob(f"{partial.stem}[._]*"):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  for path in partial.parent.glob(partial.stem):
    shutil.rmtree(path)


def read(folder, artifact):
  place, skip = folder / artifact, ("checkpoints",)
  if place.is_dir():
    return small_run.read_bytes(place, skip)
  return [path.read_bytes() for path in sorted(place.parent.glob(f"{place.name}[._]*"))]


def describe(value):
  return repr(["loss"] if value == "loss" else value)


def test_what_is_not_resumed_is_not_kept(base, finished, tmp_path):
  """Of a selection, or an evaluation, nothing can be gone on with."""
  folder = tmp_path / "work"
  shutil.copytree(finished, folder, symlinks=True)
  partial = folder / "arms/kl-30%-seed0/selection.partial"
  partial.mkdir(parents=True)
  (partial / "recipe.json").write_text('{"config": {}, "inputs": {}}')
  (partial / "selection.parquet").write_text("half")
  said, _ = make(folder, base, COMMANDS["select"], {"select.budget": "30%"})
  assert "begun with other settings" not in said
  assert not list(partial.parent.glob("*.partial"))


def test_a_finished_one_stays_until_the_new_one_is_whole(base, finished, tmp_path):
  folder = tmp_path / "work"
  shutil.copytree(finished, folder, symlinks=True)
  before = small_run.read_bytes(folder / "scores")
  changed = {"score.signals": "loss"}
  said, _ = make(folder, base, COMMANDS["score"], changed, 3)
  assert "making scores again: signals" in said
  assert small_run.read_bytes(folder / "scores") == before
  said, _ = make(folder, base, COMMANDS["score"], {})
  assert "scores is unchanged, kept" in said
