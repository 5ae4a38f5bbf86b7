"""A run whose pool and workdir are in a bucket, served on this machine."""

import contextlib
import json
import shutil
import tempfile

import numpy as np
import pytest
from etils import epath

from mllm_selector_jax import demo, storage
from mllm_selector_jax.pipeline import arms, clean_arms, kept_work
from mllm_selector_jax.runs import arm_pointers, remote_calls
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError, RunError, Stopped
from tests import faulty_proxy, gcs, small_run
from tests.models import tiny

SETTINGS = {
  "pool.demo.rows": 0,
  "seed.rows": "24",
  "seed.batch": 4,
  "seed.save_every": 2,
  "select.control": False,
  "score.part_rows": 16,
}


def forget():
  """The machine is lost, and another one goes on."""
  shutil.rmtree(f"{tempfile.tempdir}/mllm-selector")


@pytest.fixture(scope="module")
def settings(bucket, tmp_path_factory):
  """Settings of a pool and questions that lie in the bucket."""
  place = tmp_path_factory.mktemp("pool")
  demo.draw_pool(place, demo.PoolOptions(rows=60, seed=0))
  questions = demo.EvaluationOptions(questions=1, seed=0)
  demo.draw_evaluation(place / "evaluation", questions)
  for path in place.rglob("*"):
    if path.is_file():
      target = epath.Path(bucket) / "pool" / str(path.relative_to(place))
      target.write_bytes(path.read_bytes())
  return SETTINGS | {
    "pool.data": f"{bucket}/pool/pool.json",
    "pool.images": f"{bucket}/pool/images",
    "evaluate.tasks": f"{bucket}/pool/evaluation/eval.jsonl",
    "evaluate.images": f"{bucket}/pool/evaluation/images",
  }


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  return tiny.make_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def local(base, settings, tmp_path_factory):
  """The same run in a folder."""
  folder = tmp_path_factory.mktemp("local") / "work"
  with small_run.open_run(folder, base, **settings) as current:
    COMMANDS["run"](current)
  return folder


def read_bucket(url):
  """Contents of every file, as `small_run.read_bytes` gives a folder's."""
  found, folders = {}, [epath.Path(url)]
  while folders:
    for path in folders.pop().iterdir():
      if path.is_dir():
        folders.append(path)
      else:
        found[str(path.relative_to(epath.Path(url)))] = path.read_bytes()
  skipped = {"log.txt", "checkpoints", "logs", "report.html"}
  return {
    name: data for name, data in found.items() if not {*name.split("/")} & skipped
  }


def test_a_run_in_a_bucket_survives_the_loss_of_its_machines(
  bucket, settings, base, local
):
  work = f"{bucket}/run"
  with small_run.open_run(work, base, **settings) as current:
    COMMANDS["check"](current)
    asked = iter([False, False, False, True])
    current.stopped = lambda: next(asked)
    with pytest.raises(Stopped, match="after step 4 of 6"):
      COMMANDS["seed"](current)
  assert (epath.Path(work) / "seed.partial/checkpoints/4").exists()
  forget()
  with small_run.open_run(work, base, **settings) as current:
    COMMANDS["seed"](current)
    current.stopped = iter([False, True]).__next__
    with pytest.raises(Stopped, match="scoring stopped after"):
      COMMANDS["score"](current)
  parts = epath.Path(work) / "scores.partial/passes/main"
  assert len(list(parts.glob("part-*.json"))) == 2
  forget()
  with small_run.open_run(work, base, **settings) as current:
    COMMANDS["run"](current)
  wanted = small_run.read_bytes(local)
  del wanted["report.html"], wanted["report.provenance.json"]  # names the workdir
  found = read_bucket(work)
  del found["report.provenance.json"]
  assert sorted(found) == sorted(wanted)
  assert [name for name in wanted if found[name] != wanted[name]] == []
  assert (epath.Path(work) / "seed/checkpoints/6/whole.json").exists()

  forget()
  (epath.Path(work) / "arms/kl-25%-seed0/tuned/provenance.json").unlink()
  with small_run.open_run(work, base, **settings) as current:
    COMMANDS["run"](current)
  said = (epath.Path(work) / "log.txt").read_text()
  last = said[said.rindex("check: pool is unchanged") :]
  assert last.count("unchanged, kept") == 9 and last.count("making") == 1
  assert "tune: making arms/kl-25%-seed0/tuned" in last
  assert not epath.Path(f"{work}/.holder").exists()


def test_what_a_bucket_has_of_another_recipe_is_not_gone_on_from(
  bucket, settings, base
):
  work, changed = f"{bucket}/changed", settings | {"seed.learning_rate": 5e-4}
  for one in (settings, changed):
    with small_run.open_run(work, base, **one) as current:
      COMMANDS["check"](current)
      asked = iter([False, True])
      current.stopped = lambda asked=asked: next(asked)
      with pytest.raises(Stopped, match="after step 2 of 6"):
        COMMANDS["seed"](current)  # of the other recipe it would go on after step 2
    forget()


def test_what_loops_of_a_selection_kept_stays_on_the_machine(
  bucket, settings, base, monkeypatch
):
  """And goes when the next command makes the folder the same as the bucket."""
  monkeypatch.setattr(kept_work, "EVERY", 0.0)
  work = f"{bucket}/kept"
  with small_run.open_run(work, base, **settings) as current:
    COMMANDS["check"](current)
    aside = current.workdir.selection("kl").aside("a recipe")
    kept_work.KeptWork(aside, current.say).keep("loop").add(x=np.arange(3))
    assert len([*aside.glob("loop-*/0.npz")]) == 1
  names = [*read_bucket(work)]
  assert "pool.parquet" in names and not [name for name in names if "loop" in name]
  with small_run.open_run(work, base, **settings):
    assert not aside.exists()


def test_a_bucket_that_is_not_there_is_named(bucket, settings, base):
  with pytest.raises(InputError, match="gs://nowhere/run: cannot be"):
    with small_run.open_run("gs://nowhere/run", base, **settings):
      pass


def test_a_marker_that_is_torn_counts_as_none(bucket, settings, base):
  work = f"{bucket}/torn"
  with small_run.open_run(work, base, **settings) as current:
    COMMANDS["check"](current)
  marker = epath.Path(work) / "pool.provenance.json"
  marker.write_text(json.dumps({"config": {}})[:5])
  with small_run.open_run(work, base, **settings) as current:
    assert current.workdir.pool.provenance() is None


def test_what_was_begun_with_other_settings_is_kept_in_the_bucket(
  bucket, settings, base
):
  work = f"{bucket}/other"

  def seed(steps, **changed):
    """Trains until so many steps are asked about, on a machine of its own."""
    asked = []

    def stopped():
      asked.append(len(asked) + 1 == steps)
      return asked[-1]

    with small_run.open_run(work, base, **{**settings, **changed}) as current:
      COMMANDS["check"](current)
      current.stopped = stopped
      with pytest.raises(Stopped) if steps else contextlib.nullcontext():
        COMMANDS["seed"](current)
    forget()
    return len(asked), (epath.Path(work) / "log.txt").read_text()

  assert seed(4)[0] == 4
  asked, said = seed(2, **{"seed.batch": 6})
  assert asked == 2 and "(batch 4 -> 6) and holds a checkpoint of step 4" in said
  assert seed(None)[0] == 2  # of 6 steps
  left = [path.name for path in epath.Path(work).iterdir() if "partial" in path.name]
  assert left == []


def test_pointers_to_arms_come_back_and_go_with_the_arm(bucket, base, tmp_path):
  kept = tmp_path / "selected.json"
  kept.write_text("[]")
  work, settings = f"{bucket}/pointed", {"select.control": False}
  remote = epath.Path(work) / "arms"
  for name in ("one", "two"):
    (remote / name / "selection").mkdir(parents=True)
    (remote / name / "selection/selected.json").write_text("[]")
    made = {"outputs": {"selected.json": storage.hash_file(kept)}, "digest": name}
    made |= {"config": {}, "inputs": {}, "seed": 0}
    (remote / name / "selection/provenance.json").write_text(json.dumps(made))
  with small_run.open_run(work, base, **settings) as current:
    for name in ("one", "two"):
      arms.point(current, "main", name)
    assert not (current.workdir.arms / "main").exists()  # nothing but the file
  forget()
  with small_run.open_run(work, base, **settings) as current:
    assert current.workdir.arm("main").name == "two"
    clean_arms.clean_arms(current, "main")
  assert sorted(path.name for path in remote.iterdir()) == ["one"]
  with small_run.open_run(work, base, **settings) as current:
    assert arm_pointers.list_arms(current.workdir.arms) == ["one"]
    assert current.workdir.resolve("main") == "main"


def test_a_deletion_whose_answer_is_lost_is_done(bucket):
  lost = faulty_proxy.Faults(0.5, kinds=("cut after",))
  for folder in (False, True):
    path = epath.Path(bucket) / f"deleted-{folder}"
    for name in "abc" if folder else ("",):
      (path / name if name else path).write_text("text")
    with gcs.spoil(lost):
      remote_calls.delete(path)
    assert not path.exists()
  remote_calls.delete(path)  # it is gone
  assert lost.made["cut after"] > 1


def test_an_upload_that_is_lost_begins_again(bucket, tmp_path):
  lost = faulty_proxy.Faults(0.4, seed=3, kinds=(faulty_proxy.LOST,))
  source = tmp_path / "source"
  source.write_bytes(b"bytes" * 1000)
  copy, text = (epath.Path(bucket) / name for name in ("copy", "text"))
  with gcs.spoil(lost):
    remote_calls.upload(source, copy)
    remote_calls.write_text(text, "text")
  assert (copy.read_bytes(), text.read_text()) == (source.read_bytes(), "text")
  assert lost.made[faulty_proxy.LOST]
  with pytest.raises(FileNotFoundError):
    remote_calls.upload(tmp_path / "missing", copy)
  with pytest.raises(FileNotFoundError):
    remote_calls.write_text(epath.Path("gs://nowhere/text"), "text")


@pytest.mark.exhaustive
def test_stages_in_a_bucket_with_faults_are_stopped_and_go_on(
  bucket, settings, base, local
):
  work, faults = f"{bucket}/faulty", faulty_proxy.Faults(0.04, seed=1, slow=0.1)
  with gcs.spoil(faults):
    with small_run.open_run(work, base, **settings) as current:
      COMMANDS["check"](current)
      current.stopped = iter([False, True]).__next__
      with pytest.raises(Stopped, match="after step 2 of 6"):
        COMMANDS["seed"](current)
    for _ in range(5):  # orbax gives up if the answer to its deletion is lost
      forget()
      with small_run.open_run(work, base, **settings) as current:
        with contextlib.suppress(RunError):
          COMMANDS["seed"](current)
          COMMANDS["score"](current)
          break
  assert sum(faults.made.values()) > 4 and faults.made["shuffled"], faults.made
  wanted, found = small_run.read_bytes(local), read_bucket(work)
  assert {name.split("/")[0] for name in found} >= {"pool.parquet", "seed", "scores"}
  found.pop("times.json", None)
  assert [name for name in found if found[name] != wanted.get(name)] == []
