"""What each tracker writes, read back by its own package, and trackers that fail."""

import json
import struct

import pytest

from mllm_selector_jax.pipeline import evaluate_arm, trackers
from mllm_selector_jax.pipeline.trackers.tracker import Tracker
from mllm_selector_jax.types import InputError
from tests import small_run

# Their imports and their own threads warn of what is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")
LOSSES = {1: 2.5, 2: 1.25}
SETTINGS = {"tune.epochs": 7, "report.title": "x" * 600}


def write(folder, name):
  """Tracks a training of two steps."""
  with small_run.open_run(folder, "base", **SETTINGS, **{"log.trackers": name}) as run:
    with trackers.track(run, "tune main") as log:
      for step, loss in LOSSES.items():
        log({"loss": loss, "mfu": None}, step)
  return run


def read_events(folder):
  """The scalars by name and step, and the texts by name, of TensorBoard's files."""
  from tensorboardX.proto.event_pb2 import Event

  scalars, texts = {}, {}
  for path in folder.glob("events.*"):
    data, at = path.read_bytes(), 0
    while at < len(data):
      (size,) = struct.unpack_from("<Q", data, at)
      event = Event.FromString(data[at + 12 : at + 12 + size])
      for value in event.summary.value:
        if value.HasField("tensor"):
          texts[value.tag] = value.tensor.string_val[0].decode()
        else:
          scalars[value.tag, event.step] = value.simple_value
      at += 16 + size
  return scalars, texts


def test_tensorboard_has_curves_and_settings(tmp_path):
  write(tmp_path, "tensorboard")
  scalars, texts = read_events(tmp_path / "logs/tune-main")
  assert scalars == {("loss", step): loss for step, loss in LOSSES.items()}
  (settings,) = texts.values()
  assert "| tune.epochs | 7 |" in settings.splitlines()


def read_blocks(path):
  """The records of a file of wandb, which is written as LevelDB writes its logs."""
  data, at, record = path.read_bytes(), 7, b""
  while at < len(data):
    left = 32768 - at % 32768  # of a block
    if left < 7:
      at += left
      continue
    _, size, kind = struct.unpack_from("<IHB", data, at)
    record += data[at + 7 : at + 7 + size]
    at += 7 + size
    if kind in (1, 4):  # whole, or the last part
      yield record
      record = b""


def test_wandb_has_curves_and_settings(tmp_path, monkeypatch):
  Record = pytest.importorskip("wandb.proto.wandb_internal_pb2").Record
  monkeypatch.delenv("WANDB_MODE", raising=False)
  write(tmp_path / "work", "wandb")
  (path,) = (tmp_path / "work/logs/wandb").glob("offline-run-*/run-*.wandb")
  settings, history = {}, {}
  for record in map(Record.FromString, read_blocks(path)):
    if record.HasField("run"):
      named = record.run
      settings |= {item.key: item.value_json for item in named.config.update}
    for item in record.history.item:
      key = item.key or ".".join(item.nested_key)
      history[record.history.step.num, key] = json.loads(item.value_json)
  assert (named.display_name, named.run_group) == ("tune main", "work")
  assert json.loads(settings["tune.epochs"]) == "7"
  assert {step: history[step, "loss"] for step in LOSSES} == LOSSES


def test_mlflow_has_curves_and_settings(tmp_path, monkeypatch):
  mlflow = pytest.importorskip("mlflow")
  for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
    monkeypatch.delenv(name, raising=False)
  write(tmp_path / "work", "mlflow")
  write(tmp_path / "work", "mlflow")  # into the same experiment
  client = mlflow.MlflowClient((tmp_path / "work/logs/mlruns").as_uri())
  experiment = client.get_experiment_by_name("mllm-selector")
  runs = client.search_runs([experiment.experiment_id])
  assert len(runs) == 2
  for run in runs:
    assert (run.info.run_name, run.info.status) == ("tune main", "FINISHED")
    assert run.data.params["tune.epochs"] == "7" and run.data.tags["workdir"] == "work"
    measured = client.get_metric_history(run.info.run_id, "loss")
    assert {metric.step: metric.value for metric in measured} == LOSSES


def test_a_tracker_that_fails_is_said_and_left_out(tmp_path, monkeypatch):
  logged, closed = [], []

  def open_failing(job):
    def log(values, step):
      logged.append(step)
      raise OSError("no space left")

    return Tracker(log, lambda: closed.append(True))

  monkeypatch.setitem(trackers.TRACKERS, "wandb", open_failing)
  monkeypatch.setitem(trackers.PACKAGES, "wandb", "json")
  write(tmp_path, "wandb,tensorboard")
  assert logged == [1] and not closed
  said = (tmp_path / "log.txt").read_text()
  assert "tune main: log.trackers: wandb failed and is left out (OSError: no" in said
  assert len(read_events(tmp_path / "logs/tune-main")[0]) == len(LOSSES)


def test_a_package_that_is_not_installed_is_one_message(monkeypatch):
  trackers.check_packages(None)
  trackers.check_packages("tensorboard")
  monkeypatch.setitem(trackers.PACKAGES, "mlflow", "not_installed_anywhere")
  with pytest.raises(InputError, match=r"'mllm_selector_jax\[mlflow\]'"):
    trackers.check_packages(["tensorboard", "mlflow"])


def test_all_figures_of_an_evaluation_are_shown():
  total = {"value": 0.5, "low": 0.25, "high": None, "count": 4}
  results = {"macro": total | {"value": 0.75}, "tasks": {"counting": total}}
  assert evaluate_arm._list_figures(results) == {
    "macro/value": 0.75,
    "macro/low": 0.25,
    "macro/high": None,
    "task/counting/value": 0.5,
    "task/counting/low": 0.25,
    "task/counting/high": None,
  }
