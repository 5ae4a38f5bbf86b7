"""Writes MLflow's files to `logs/mlruns/`.

The package's own variables are obeyed: MLFLOW_TRACKING_URI names a server or another
store, and MLFLOW_EXPERIMENT_NAME the experiment.
"""

import os
import time
from typing import Any

from mllm_selector_jax.pipeline.trackers.tracker import PROJECT, Job, Tracker

_MOST_PARAMETERS = 100  # that MLflow takes at once
_LONGEST = 500  # characters of a parameter


def open_mlflow(job: Job) -> Tracker:
  """Open a run that has the job's title as name, and the workdir's as a tag."""
  # Nothing leaves the machine.
  os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
  # MLflow 3.17 writes files only if it is told that they are wanted.
  os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
  from mlflow.entities import Metric, Param
  from mlflow.tracking import MlflowClient

  files = (job.folder / "mlruns").absolute().as_uri()
  client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", files))
  experiment = _find_experiment(client)
  tags = {"workdir": job.group}
  run = client.create_run(experiment, run_name=job.title, tags=tags).info.run_id
  settings = [Param(key, value[:_LONGEST]) for key, value in job.settings.items()]
  for first in range(0, len(settings), _MOST_PARAMETERS):
    client.log_batch(run, params=settings[first : first + _MOST_PARAMETERS])

  def log(values: dict[str, float], step: int) -> None:
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, step) for name, value in values.items()]
    client.log_batch(run, metrics=metrics)

  return Tracker(log, lambda: client.set_terminated(run))


def _find_experiment(client: Any) -> str:
  """Return the id of the experiment, which is made if there is none."""
  name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
  known = client.get_experiment_by_name(name)
  return client.create_experiment(name) if known is None else known.experiment_id
