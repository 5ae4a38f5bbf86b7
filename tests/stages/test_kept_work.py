"""What loops of a selection keep in files: what is written when, and read again."""

import functools
import shutil
import time

import numpy as np
import pytest

from mllm_selector_jax import storage
from mllm_selector_jax.pipeline import kept_work
from mllm_selector_jax.selection.pairwise import farthest
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import Stopped
from tests import small_run
from tests.real_processes import Forked, write_config


def keep(folder, name="loop", *made_from):
  return kept_work.KeptWork(folder, print).keep(name, *made_from)


def read(folder, *made_from):
  return [part["x"].tolist() for part in keep(folder, "loop", *made_from).read()]


@pytest.fixture
def at_once(monkeypatch):
  monkeypatch.setattr(kept_work, "EVERY", 0.0)


def test_parts_are_read_in_their_order(tmp_path, at_once):
  loop = keep(tmp_path)
  for number in range(12):
    loop.add(x=np.arange(number))
  wanted = [list(range(number)) for number in range(12)]
  assert read(tmp_path) == wanted
  again = keep(tmp_path)
  assert len([*again.read()]) == 12
  again.add(x=np.array([5]))
  assert read(tmp_path) == [*wanted, [5]]
  keep(tmp_path).replace(x=np.array([7]))
  assert read(tmp_path)[0] == [7]


def test_files_are_written_now_and_then_for_all_loops(tmp_path, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(time, "monotonic", lambda: now[0])
  work = kept_work.KeptWork(tmp_path, print)
  one, other = work.keep("one"), work.keep("other")
  best = np.zeros(3)
  for step in range(4):
    one.add(x=np.array([step]), y=np.array([[step, step]]))
    best += 1
    other.replace(best=best)
    best += 0.5  # as a loop goes on with its own array
  assert not [*tmp_path.iterdir()]
  now[0] += kept_work.EVERY
  one.add(x=np.array([4]), y=np.array([[4, 4]]))
  now[0] += kept_work.EVERY - 1
  one.add(x=np.array([5]), y=np.array([[5, 5]]))
  found = [*keep(tmp_path, "one").read()]
  assert [part["x"].tolist() for part in found] == [[0, 1, 2, 3, 4]]
  assert found[0]["y"].shape == (5, 2)
  (last,) = keep(tmp_path, "other").read()
  assert last["best"].tolist() == [5.5] * 3
  # A loop of the same command reads what is not written yet as well.
  assert [part["x"].tolist() for part in work.keep("one").read()][-1] == [5]


def test_what_decides_the_result_names_the_file(tmp_path, at_once):
  rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
  order = np.arange(50)
  made_from = UnitRows(rows), order, 5, None, "a"
  keep(tmp_path, "loop", *made_from).add(x=order)
  assert len(read(tmp_path, *made_from)) == 1
  longer, turned = rows.copy(), rows.copy()
  longer[7] *= 1.5
  turned[7] = turned[7, ::-1]
  for other in (
    (UnitRows(longer), *made_from[1:]),
    (UnitRows(turned), *made_from[1:]),
    (UnitRows(rows[:, :3]), *made_from[1:]),
    (made_from[0], order[::-1], *made_from[2:]),
    (made_from[0], order.astype(np.int32), *made_from[2:]),
    (*made_from[:2], 6, *made_from[3:]),
    (*made_from[:4], "b"),
    made_from[:4],
  ):
    assert read(tmp_path, *other) == []


@pytest.mark.parametrize("length", [0, 10, 40, -1])
def test_a_part_that_is_cut_off_ends_what_is_read(length, tmp_path, at_once):
  loop = keep(tmp_path)
  for number in range(3):
    loop.add(x=np.array([number]))
  path = next(tmp_path.glob("loop-*")) / "1.npz"
  path.write_bytes(path.read_bytes()[:length])
  again = keep(tmp_path)
  assert [part["x"].tolist() for part in again.read()] == [[0]]
  again.add(x=np.array([8]))
  assert read(tmp_path) == [[0], [8]]  # and not the 2 of before


def test_a_full_disk_is_told_once_and_ends_nothing(tmp_path, at_once, monkeypatch):
  said = []
  work = kept_work.KeptWork(tmp_path / "kept", said.append)
  loop = work.keep("loop")
  loop.add(x=np.array([0]))

  def writing(path):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(storage, "writing", writing)
  for number in range(3):
    loop.add(x=np.array([number]))
  (text,) = said
  assert "No space left on device" in text and not (tmp_path / "kept").exists()
  assert [*loop.read()] == []


def test_an_ended_selection_goes_on_and_leaves_no_files(select, at_once, monkeypatch):
  settings = {"strategy": "k_center", "budget": "40"}
  traverse, updates = functools.partial(farthest.traverse, batch_picks=4), []
  monkeypatch.setattr(farthest, "traverse", traverse)
  _, folder = select(**settings)
  arms = folder / "arms"
  wanted = small_run.read_bytes((arms / "main").resolve() / "selection")
  shutil.rmtree((arms / "main").resolve())

  def watched(*arguments, progress, **options):
    """Is told of a SIGTERM in the third round."""

    def update(done, total):
      updates.append(done)
      if len(updates) == 3:
        run.stop()
      progress(done, total)

    return traverse(*arguments, progress=update, **options)

  def stage(current):
    nonlocal run
    run = current
    return COMMANDS["select"](current)

  run = None
  monkeypatch.setattr(farthest, "traverse", watched)
  with pytest.raises(Stopped, match="farthest rows after"):
    select(stage, **settings)
  (kept,) = arms.glob("k_center-40-seed0/selection.*.partial/picks-*/0.npz")
  picked = updates[2]
  assert updates[0] == 0 < picked
  # Other settings have an arm of their own, and find nothing.
  updates[:] = [None] * 3
  select(stage, **{**settings, "budget": "30"})
  assert updates[3] == 0 and kept.exists()
  updates[:] = [None] * 3
  select(stage, **settings)
  assert updates[3] == picked and not kept.exists()
  found = small_run.read_bytes((arms / "main").resolve() / "selection")
  assert found == wanted and not [*arms.rglob("*.partial")]
  assert "select: farthest rows" in (folder / "log.txt").read_text()


SLOWLY = """
import functools, sys, time
from mllm_selector_jax.pipeline import kept_work
from mllm_selector_jax.selection import kmeans
from mllm_selector_jax.selection.pairwise import farthest, neighbours
from mllm_selector_jax.selection.rivals import facility_location

def partial(module, name, **settings):
  setattr(module, name, functools.partial(getattr(module, name), **settings))

partial(farthest, "traverse", batch_picks=2)
partial(neighbours, "find_neighbours", exact_rows=10, probes=3)
partial(facility_location, "cover_greedily", all_pairs_rows=10)
kept_work.EVERY = 0.0
write = kept_work.KeptWork._write
def write_slowly(self):
  write(self)
  time.sleep({seconds})
kept_work.KeptWork._write = write_slowly
read = kept_work._KeptLoop.read
def read_aloud(self):
  parts = [*read(self)]
  print(self._folder.name.split("-")[0], len(parts), "parts", file=sys.stderr)
  return iter(parts)
kept_work._KeptLoop.read = read_aloud
"""


@pytest.mark.slow
@pytest.mark.parametrize(
  "strategy, loop, part",
  [("k_center", "picks", 0), ("facility_location", "neighbours", 2)],
)
def test_a_selection_that_was_killed_ends_with_the_same_bytes(
  strategy, loop, part, scored, base, tmp_path
):
  settings = {"score.model": str(base), "select.control": False}
  settings |= {"select.strategy": strategy, "select.budget": "40"}
  folders = {}
  for name, seconds in (("whole", 0), ("slow", 0.3), ("rest", 0)):
    config = write_config(tmp_path / f"{name}.py", base, **settings)
    config.write_text(config.read_text() + SLOWLY.format(seconds=seconds))
    folders[name] = tmp_path / name, config
  for name in ("whole", "slow"):
    shutil.copytree(scored, folders[name][0], symlinks=True)
  folder = folders["slow"][0]
  status, said = Forked(*folders["whole"], "select").end(120)
  assert status == 0 and f"{loop} 0 parts" in said, said

  process = Forked(*folders["slow"], "select")
  pattern = f"arms/*/selection.*.partial/{loop}-*/{part}.npz"
  while not (kept := [*folder.glob(pattern)]):
    assert process.poll() is None, process.said()
    time.sleep(0.01)
  process.kill()
  assert process.end(10)[0] == -9
  parts = len([*kept[0].parent.glob("[0-9]*.npz")])
  status, said = Forked(folder, folders["rest"][1], "select").end(120)
  assert status == 0 and f"{loop} {parts} parts" in said, said
  wanted = small_run.read_bytes((folders["whole"][0] / "arms/main").resolve())
  assert small_run.read_bytes((folder / "arms/main").resolve()) == wanted
  assert not [*folder.rglob("*.partial")]
