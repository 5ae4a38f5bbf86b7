"""Waiting for files that another host wrote."""

import json
import threading
import time

import pytest

from mllm_selector_jax.runs import arm_pointers, artifacts, peers, shared_volume
from mllm_selector_jax.runs.artifacts import Artifact, Recipe
from mllm_selector_jax.types import InputError

DELAY = 0.4  # seconds


@pytest.fixture
def second(monkeypatch):
  """Makes this the second of two processes; what the first one sends is appended."""
  sent = []
  monkeypatch.setattr(peers, "number_and_count", lambda: (1, 2))
  monkeypatch.setattr(
    peers, "exchange", lambda text: [sent.pop(0) if text != "seen" else text, text]
  )
  return sent


def late(change):
  """Does something when DELAY has passed."""
  threading.Timer(DELAY, change).start()
  return time.monotonic()


def make(path):
  artifact = Artifact(path)
  with artifact.making(Recipe("any", {}, {}, 0)) as folder:
    (folder / "a.txt").write_text("a")
  return artifact


def test_an_artifact_that_is_seen_late_is_waited_for(tmp_path, second):
  artifact = Artifact(tmp_path / "made")
  other = make(tmp_path / "other")
  second.append(artifacts.hash_json(other.marker.read_text()))
  begun = late(lambda: other.path.rename(artifact.path))
  shared_volume.wait_for_artifact(artifact)
  assert DELAY <= time.monotonic() - begun < 5
  assert artifact.provenance() is not None


def test_an_output_that_is_seen_later_than_its_marker_is_waited_for(tmp_path, second):
  artifact = make(tmp_path / "made")
  second.append(artifacts.hash_json(artifact.marker.read_text()))
  (artifact.path / "a.txt").rename(tmp_path / "a.txt")
  begun = late(lambda: (tmp_path / "a.txt").rename(artifact.path / "a.txt"))
  shared_volume.wait_for_artifact(artifact)
  assert DELAY <= time.monotonic() - begun < 5


def test_an_old_marker_and_pointer_are_not_taken_for_the_new_ones(tmp_path, second):
  arms = tmp_path / "arms"
  arm_pointers.write(arms, "main", "old", link=False)
  path = arm_pointers.pointer_path(arms, "main")
  artifact = make(tmp_path / "made")
  texts = shared_volume._read_workdir(tmp_path)
  assert sorted(texts) == ["arms/main.json", "made/provenance.json"]
  texts["arms/main.json"] = artifacts.hash_json(path.read_text().replace("old", "new"))
  second.append(json.dumps(texts))
  begun = late(lambda: arm_pointers.write(arms, "main", "new", link=False))
  shared_volume.wait_for_workdir(tmp_path)
  assert DELAY <= time.monotonic() - begun < 5
  assert artifact.provenance() is not None


def test_what_is_never_seen_is_named(tmp_path, second, monkeypatch):
  monkeypatch.setattr(shared_volume, "SEEN", 0.3)
  second.append(artifacts.hash_json("text"))
  with pytest.raises(InputError, match=r"recipe.json is not here as process 0 sees it"):
    shared_volume.wait_for_file(tmp_path / "made.partial" / "recipe.json")


def test_a_process_that_sees_late_does_not_finish_the_swap_of_another(tmp_path, second):
  artifact = make(tmp_path / "made")
  artifact.path.rename(artifact.partial)
  assert artifact.provenance() is None and artifact.partial.is_dir()


def test_a_single_process_waits_for_nothing(tmp_path):
  shared_volume.check(tmp_path)
  shared_volume.wait_for_workdir(tmp_path)
  shared_volume.wait_for_artifact(Artifact(tmp_path / "made"))
  shared_volume.wait_for_file(tmp_path / "no file")
  assert list(tmp_path.iterdir()) == []
