"""Which models score the pool, and whether their settings can be read."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring import passes
from mllm_selector_jax.types import InputError


def check_reference(cfg: Any) -> None:
  """Refuses a signal that compares with a reference model where there is none."""
  wanted = passes.list_passes(base_model.scored_signals(cfg))
  scored = cfg.score.table is None and any(own.model == "reference" for own in wanted)
  if scored and cfg.score.reference is None:
    raise InputError(
      "score.signals has excess, the loss over a reference model's:"
      " --config.score.reference=DIR gives that model."
    )


def check_folders(cfg: Any) -> None:
  """Refuses models that cannot be read, and scores that are not there."""
  find_given(cfg.score.table, "score.table")
  for name in ("model", "reference"):
    folder = find_given(cfg.score[name], f"score.{name}")
    if folder is not None:
      huggingface.check_weights(folder, huggingface.read_config(folder))


def needs_seed(run: Run) -> bool:
  """Whether the scores are the seed model's."""
  return run.cfg.score.model is None and run.cfg.score.table is None


def find_given(value: str | None, name: str) -> Path | None:
  if value is not None and not Path(value).is_dir():
    raise InputError(f"{name}={value}: there is no such directory.")
  return None if value is None else Path(value)
