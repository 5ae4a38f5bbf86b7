"""Checkpoints: on other meshes, damaged, the best, and on a full disk."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import mllm
from mllm_selector_jax.runs import checkpoint
from mllm_selector_jax.training import loop
from mllm_selector_jax.training.optimizer_options import OptimizerOptions
from mllm_selector_jax.types import Stopped
from tests.training import toy

# A calm recipe: a wild one magnifies the rounding of one step in the next ones.
CALM = OptimizerOptions(2e-3, warmup=0.1)
OPTIONS = loop.LoopOptions(CALM, save_every=1, keep=2)


def train(shape=(1, 1, 1), folder=None, until=None, options=OPTIONS, **kwargs):
  """Params and metrics of 8 steps on a mesh; stopped after `until`, none."""
  batches = toy.make_batches(multiple=8)
  mesh = sharding.make_mesh(*shape, devices=jax.devices()[: np.prod(shape)])
  seen = []
  given = toy.CONFIG, mllm.init(toy.CONFIG, 0), batches.to_grain(), len(batches)
  try:
    return loop.train(
      *given,
      options,
      mesh,
      folder=folder,
      progress=lambda done, total: seen.append(done),
      stopped=lambda: seen[-1] == until,
      **kwargs,
    )
  except Stopped:
    assert seen[-1] == until
    return None


def read_losses(metrics):
  return [line["loss"] for line in metrics]


def list_steps(folder):
  return sorted(int(path.name) for path in folder.iterdir())


@pytest.fixture(scope="module")
def unbroken():
  return train()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
  """Checkpoints of the steps 4 and 5 of a training over eight devices."""
  folder = tmp_path_factory.mktemp("stopped") / "checkpoints"
  assert train((1, 8, 1), folder, until=5) is None
  assert list_steps(folder) == [4, 5]
  return folder


def copy(source, target):
  subprocess.run(["cp", "-r", str(source), str(target)], check=True)
  return target


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)])
def test_a_training_goes_on_on_another_mesh(stopped, unbroken, tmp_path, shape):
  folder, seen = copy(stopped, tmp_path / "checkpoints"), []
  params, metrics = train(shape, folder, observe=seen.append)
  assert [one.metrics["step"] for one in seen] == [6, 7, 8]
  wanted = read_losses(unbroken[1])
  np.testing.assert_allclose(read_losses(metrics), wanted, rtol=1e-5)
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-4),
    params,
    unbroken[0],
  )


def link_outside(path):
  """Puts a link to the same bytes elsewhere in a file's place."""
  folder = next(parent for parent in path.parents if parent.name == "5").parent
  path.symlink_to(path.rename(folder.with_name(f"outside-{folder.name}")))


DAMAGES = {
  "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
  "gone": lambda path: path.unlink(),
  "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
  "link": link_outside,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_that_was_torn_is_not_taken(stopped, unbroken, tmp_path, damage):
  # Every file, one after the other, without the training that would follow.
  names = sorted(p.relative_to(stopped) for p in (stopped / "5").rglob("*"))
  names = [name for name in names if (stopped / name).is_file()]
  assert len(names) > 8
  for place, name in enumerate(names):
    if name.name in checkpoint.TIMES:
      continue
    folder, said = copy(stopped, tmp_path / str(place)), []
    DAMAGES[damage](folder / name)
    with checkpoint.Checkpoints(folder, warn=said.append) as found:
      assert found._find_whole() == 4, name
    (warning,) = said
    assert "5 is damaged (" in warning and name.name in warning
    assert list_steps(folder) == [4]
  _, metrics = train((1, 1, 1), folder)
  np.testing.assert_allclose(read_losses(metrics), read_losses(unbroken[1]), rtol=1e-5)


def test_one_whose_every_checkpoint_is_torn_begins_anew(stopped, unbroken, tmp_path):
  folder, said = copy(stopped, tmp_path / "checkpoints"), []
  for path in folder.rglob("d/*"):
    path.write_bytes(b"")
  (folder / "3").mkdir()
  params, _ = train(folder=folder, warn=said.append)
  assert ["5 is", "4 is", "3 is"] == [
    text.split("checkpoints/")[1][:4] for text in said
  ]
  jax.tree.map(np.testing.assert_array_equal, params, unbroken[0])


def test_what_orbax_noted_of_times_may_be_torn(stopped, tmp_path):
  folder, seen = copy(stopped, tmp_path / "checkpoints"), []
  for name in checkpoint.TIMES:
    for path in (folder / "5").rglob(name):
      path.write_bytes(path.read_bytes()[:9])
  train((1, 1, 1), folder, observe=seen.append)
  assert [one.metrics["step"] for one in seen] == [6, 7, 8]


def test_the_newest_and_the_best_before_them_stay(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint, "BEST_STEPS", 2)
  options = loop.LoopOptions(CALM, save_every=1, keep=2, keep_best=1)
  assert train(folder=tmp_path, until=4, options=options) is None
  _, metrics = train(folder=tmp_path, options=options)  # the losses are remembered
  loss = read_losses(metrics)
  judged = {step: np.mean(loss[max(0, step - 2) : step]) for step in range(1, 7)}
  best = min(judged, key=judged.get)
  assert list_steps(tmp_path) == sorted({best, 7, 8})
  assert len({round(value, 6) for value in judged.values()}) == 6


FULL = """
import resource, signal, sys
from tests.training import test_checkpoints as own

def limit(observed):
  if observed.metrics["step"] == 3:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
own.train(folder=own.checkpoint.epath.Path(sys.argv[1]), observe=limit)
"""


def test_a_full_disk_ends_the_training_and_leaves_the_last_one(unbroken, tmp_path):
  command = [sys.executable, "-c", FULL, str(tmp_path / "checkpoints")]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 1
  (message,) = [line for line in done.stderr.splitlines() if "RunError:" in line][-1:]
  assert "could not be written to" in message and "is untouched" in message
  seen = []
  params, _ = train(folder=tmp_path / "checkpoints", observe=seen.append)
  assert 1 < len(seen) < 8
  jax.tree.map(np.testing.assert_array_equal, params, unbroken[0])


def test_a_checkpoint_holds_the_hashes_of_its_files(stopped):
  noted = json.loads((stopped / "5" / checkpoint.WHOLE).read_text())
  files = {p.relative_to(stopped / "5") for p in (stopped / "5").rglob("*")}
  files = {name for name in files if (stopped / "5" / name).is_file()}
  unnoted = {name.name for name in files if str(name) not in noted}
  assert unnoted == {checkpoint.WHOLE, *checkpoint.TIMES} and len(noted) > 6
