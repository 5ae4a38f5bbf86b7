"""Finds and checks the models that score the pool, without loading them."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring import passes
from mllm_selector_jax.types import InputError


def check_reference(cfg: Any) -> None:
  """Raise an InputError if a signal needs a reference model and none is given."""
  pass_specs = passes.list_passes(base_model.scored_signals(cfg))
  scored_here = cfg.score.table is None and any(
    pass_spec.model == "reference" for pass_spec in pass_specs
  )
  if scored_here and cfg.score.reference is None:
    raise InputError(
      "score.signals has excess, which compares the loss with that of a reference"
      " model: give that model by --config.score.reference=DIR."
    )


def check_folders(cfg: Any) -> None:
  """Raise an InputError if a model or a table that the config names is missing."""
  check_folder(cfg.score.table, "score.table")
  for name in ("model", "reference"):
    folder = find_model(cfg.score[name], f"score.{name}")
    if folder is not None:
      huggingface.check_weights(folder, huggingface.read_config(folder))


def needs_seed(run: Run) -> bool:
  """Say whether the pool is scored with the run's own seed model."""
  return run.cfg.score.model is None and run.cfg.score.table is None


def find_model(value: str | None, option: str) -> Path | None:
  """Return the directory of a model that an option names, or None if it names none.

  Raises:
    InputError: Neither a directory nor a hub name that can be had.
  """
  if value is None:
    return None
  try:
    return base_model.find_model(value)
  except InputError as error:
    raise InputError(f"{option}={value}: {error}") from error


def check_folder(value: str | None, option: str) -> Path | None:
  """Return the folder that an option names, or None if it names none.

  Raises:
    InputError: There is no such directory.
  """
  if value is not None and not Path(value).is_dir():
    raise InputError(f"{option}={value}: there is no such directory.")
  return None if value is None else Path(value)
