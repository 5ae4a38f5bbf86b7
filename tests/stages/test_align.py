"""Stage 1 on a small drawn pool, and what is seen of a training."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file

from mllm_selector_jax.pipeline import telemetry
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.training.loop import Observed
from mllm_selector_jax.training.work import Work
from tests import small_run
from tests.models import tiny

SETTINGS = {
  "model.conversation": "plain",
  "align.rows": "48",
  "align.batch": 16,
  "align.row_length": 80,
  "align.accumulate": 2,
  "log.trackers": "tensorboard",
}


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
  place = tmp_path_factory.mktemp("align")
  base = tiny.make_base(place / "base")
  with small_run.open_run(place / "work", base, **SETTINGS) as run:
    COMMANDS["check"](run)
    COMMANDS["align"](run)
  return place


def read_lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_projector_alone_is_trained(aligned):
  before = load_file(aligned / "base/model.safetensors")
  after = load_file(aligned / "work/aligned/hf/model.safetensors")
  assert before.keys() == after.keys()
  changed = {name for name in before if (before[name] != after[name]).any()}
  assert changed == {name for name in before if "multi_modal_projector" in name}
  made = json.loads((aligned / "work/aligned/provenance.json").read_text())
  assert made["config"]["learning_rate"] == 1e-3
  assert not [name for name in made["outputs"] if "log" in name]


def test_other_micro_batches_leave_it_as_it_is(aligned):
  settings = {**SETTINGS, "align.accumulate": 1, "model.remat": "full"}
  place = len((aligned / "work/log.txt").read_text())
  with small_run.open_run(aligned / "work", aligned / "base", **settings) as run:
    COMMANDS["align"](run)
  assert "unchanged, kept" in (aligned / "work/log.txt").read_text()[place:]


def test_every_step_is_logged_and_the_artifact_holds_no_time(aligned):
  kept = read_lines(aligned / "work/aligned/metrics.jsonl")
  logged = read_lines(aligned / "work/logs/align/steps.jsonl")
  assert len(kept) == 3
  assert [{key: line[key] for key in kept[0]} for line in logged] == kept
  assert set(logged[0]) - set(kept[0]) == {
    "seconds",
    "tokens_per_second",
    "mfu",
    "padding",
    "waiting",
    "compiling",
  }
  assert logged[0]["compiling"] > logged[0]["seconds"] > 0 == logged[1]["compiling"]
  for line in logged:
    assert line["mfu"] is None  # no published peak of this processor
    assert 0 < line["padding"] < 1 and 0 <= line["waiting"] <= 1
    assert line["tokens_per_second"] > 0
  assert " tokens/s, " in (aligned / "work/log.txt").read_text()


def test_tensorboard_has_the_same_curves(aligned):
  from tensorboardX.proto.event_pb2 import Event

  (path,) = (aligned / "work/logs/align").glob("events.*")
  data, found, at = path.read_bytes(), {}, 0
  while at < len(data):
    (size,) = struct.unpack_from("<Q", data, at)
    event = Event.FromString(data[at + 12 : at + 12 + size])
    for value in event.summary.value:
      found[value.tag, event.step] = value.simple_value
    at += 16 + size
  for line in read_lines(aligned / "work/logs/align/steps.jsonl"):
    for name in ("loss", "grad_norm", "learning_rate", "padding", "waiting"):
      np.testing.assert_allclose(found[name, line["step"]], line[name], rtol=1e-6)


def test_rates_are_those_of_all_steps_together():
  metrics = {"step": 7, "loss": 1.5, "grad_norm": 0.25, "learning_rate": 2e-5}
  window = [
    Observed(metrics, Work(60, 100, 3e12), 1.0, 0.1),
    Observed(metrics, Work(90, 100, 5e12), 3.0, 0.7),
  ]
  found = telemetry.rates(window, peak=8e12)
  assert found == pytest.approx(
    {
      "seconds": 4.0,
      "tokens_per_second": 150 / 4,
      "mfu": 8e12 / 4 / 8e12,
      "padding": 50 / 200,
      "waiting": 0.8 / 4,
    }
  )
  line = telemetry.describe("tune main", 1000, window, 8e12)
  assert line == (
    "tune main: step 7 of 1,000: loss 1.5000, gradient norm 0.25, learning rate 2e-05,"
    " 38 tokens/s, MFU 25.0%, 25.0% padding, 20.0% waiting for input"
  )
  assert "MFU" not in telemetry.describe("tune main", 1000, window, None)
