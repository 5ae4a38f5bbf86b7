"""Hands settings, training curves and evaluation results to experiment trackers.

`log.trackers` names the trackers. Each is a function of a file of its own that opens a
`Tracker`. Trackers hold copies of what `logs/` and the artifacts have. A tracker that
fails is reported and left out, and never ends a run.
"""

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mllm_selector_jax import listing
from mllm_selector_jax.pipeline.trackers import (
  mlflow_tracker,
  tensorboard_tracker,
  wandb_tracker,
)
from mllm_selector_jax.pipeline.trackers.tracker import Job, Tracker
from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.context import Run, plain
from mllm_selector_jax.types import InputError

# Also the names of the extras of setup.py.
TRACKERS: dict[str, Callable[[Job], Tracker]] = {
  "tensorboard": tensorboard_tracker.open_tensorboard,
  "wandb": wandb_tracker.open_wandb,
  "mlflow": mlflow_tracker.open_mlflow,
}
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}

Log = Callable[[Mapping[str, float | None], int], None]


def choose_trackers(names: Any) -> tuple[str, ...]:
  """Return the trackers that `log.trackers` names.

  Raises:
    InputError: A tracker is unknown.
  """
  chosen = tuple(dict.fromkeys(listing.split_names(names)))
  if any(name not in TRACKERS for name in chosen):
    raise InputError(
      f"log.trackers={','.join(chosen)}: allowed are {', '.join(TRACKERS)}."
    )
  return chosen


def check_packages(names: Any) -> None:
  """Raise an InputError if a package that `log.trackers` needs is not installed."""
  for name in choose_trackers(names):
    if importlib.util.find_spec(PACKAGES[name]) is None:
      raise InputError(
        f"log.trackers names {name}, and the package {PACKAGES[name]} is not installed:"
        f" pip install 'mllm_selector_jax[{name}]', or leave {name} out."
      )


@contextlib.contextmanager
def track(run: Run, title: str) -> Iterator[Log]:
  """Open the trackers of one training or evaluation, with the settings of the run.

  Only the first process has trackers.

  Args:
    run: The invocation.
    title: Title of the training or evaluation, such as "tune main".

  Yields:
    A function of the values by name, and the step, counted from 1. Values that are None
    are left out.

  Raises:
    InputError: The package of a tracker is not installed.
  """
  names = choose_trackers(run.cfg.log.trackers)
  check_packages(names)
  trackers: dict[str, Tracker] = {}

  def attempt(name: str, action: Callable[[], Any]) -> Any:
    try:
      return action()
    except Exception as error:  # of a package that is not ours
      trackers.pop(name, None)
      run.say(
        f"{title}: log.trackers: {name} failed and is left out"
        f" ({type(error).__name__}: {error})"
      )

  def log(values: Mapping[str, float | None], step: int) -> None:
    known = {key: float(value) for key, value in values.items() if value is not None}
    for name, tracker in list(trackers.items()):
      attempt(name, functools.partial(tracker.log, known, step))

  if names and peers.is_first_process():
    job = _describe(run, title)
    for name in names:
      tracker = attempt(name, functools.partial(TRACKERS[name], job))
      if tracker is not None:
        trackers[name] = tracker
  try:
    yield log
  finally:
    for name, tracker in list(trackers.items()):
      attempt(name, tracker.close)


def _describe(run: Run, title: str) -> Job:
  settings = artifacts.flatten(plain(run.cfg))
  return Job(
    run.workdir.logs,
    title,
    run.workdir.path.name,
    {key: str(value) for key, value in settings.items()},
  )
