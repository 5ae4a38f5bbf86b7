"""Writes Weights & Biases' offline files to `logs/wandb/`.

`wandb sync` uploads them. The package's own variables are obeyed: WANDB_MODE=online
uploads at once, and WANDB_PROJECT names the project.
"""

import os
from typing import Any

from mllm_selector_jax.pipeline.trackers.tracker import PROJECT, Job, Tracker


def open_wandb(job: Job) -> Tracker:
  """Open a run that has the job's title as name, in the group of the workdir."""
  os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing leaves the machine
  import wandb

  job.folder.mkdir(parents=True, exist_ok=True)
  mode: Any = os.environ.get("WANDB_MODE", "offline")
  started = wandb.init(
    mode=mode,
    project=os.environ.get("WANDB_PROJECT", PROJECT),
    dir=str(job.folder),
    name=job.title,
    group=job.group,
    config=job.settings,
    reinit="create_new",  # leaves alone a run that the user's own code has open
    settings=wandb.Settings(silent=True, console="off", save_code=False),
  )
  return Tracker(lambda values, step: started.log(values, step=step), started.finish)
