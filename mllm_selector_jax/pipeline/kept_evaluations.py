"""Keeps evaluations of one model that were made with other questions or settings."""

import shutil
from pathlib import Path
from typing import Any

from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.artifacts import Artifact, Recipe
from mllm_selector_jax.runs.context import Run

_SHOWN = 4  # differences that a message names


def set_aside(run: Run, artifact: Artifact, recipe: Recipe) -> None:
  """Move an evaluation with other settings aside, and one with these settings back.

  An evaluation of another model is left to be replaced. All processes call this.

  Args:
    run: The invocation.
    artifact: The evaluation of an arm.
    recipe: What the evaluation is to be made from.
  """
  if peers.is_first_process():
    made = artifact.provenance()
    changes = recipe.differences(made) if made else []
    if made and changes and made["inputs"].get("tuned") == recipe.inputs["tuned"]:
      kept = _kept_path(artifact, made)
      run.say(
        f"evaluate: {run.workdir.name(artifact)} was made with other settings"
        f" ({'; '.join(changes[:_SHOWN])}); it is kept as {kept.name}"
      )
      _move(run, artifact.path, kept)
    kept = _kept_path(artifact, recipe.to_json())
    if Artifact(kept).provenance() and not artifact.path.exists():
      run.say(f"evaluate: {run.workdir.name(artifact)} is again {kept.name}")
      _move(run, kept, artifact.path)
  peers.exchange("the evaluations are in place")


def _kept_path(artifact: Artifact, made: dict[str, Any]) -> Path:
  """Return where an evaluation is kept: beside the artifact, by its recipe."""
  names = ("stage", "config", "inputs", "seed")
  digest = artifacts.hash_json({name: made[name] for name in names})
  return artifact.path.with_name(f"{artifact.path.name}-{digest[:8]}")


def _move(run: Run, source: Path, target: Path) -> None:
  shutil.rmtree(target, ignore_errors=True)
  if run.bucket is not None:
    run.bucket.move(source, target)
  source.rename(target)
