"""Keeps what an interrupted stage has done when it is run again with other settings.

The unfinished artifact is kept in `<name>.<digest>.partial` until the new one is
complete, and is continued if the old settings are restored before.
"""

import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mllm_selector_jax.data.pool import checked_parts, pool_table, prepared_pool
from mllm_selector_jax.runs import artifacts

MOST = 4  # largest number of differences that a message names


def keep_others(
  run: Any, artifact: artifacts.Artifact, recipe: artifacts.Recipe
) -> None:
  """Moves an unfinished artifact of another recipe aside, and one of this recipe back.

  Only the first process calls this, before it makes an artifact.

  Args:
    run: the invocation, a `context.Run`.
    artifact: the artifact that is about to be made.
    recipe: what the artifact is made from.
  """
  recipe_text = recipe.to_text()
  partial_recipe = artifacts.read_recipe(artifact.partial)
  if partial_recipe not in (None, recipe_text):
    if describe(run, artifact.partial):
      _move(run, artifact.partial, artifact.aside(partial_recipe))
    else:
      shutil.rmtree(artifact.partial)
  kept = artifact.aside(recipe_text)
  if artifacts.read_recipe(kept) == recipe_text and not artifact.partial.exists():
    _move(run, kept, artifact.partial)
  name = run.workdir.name(artifact)
  for folder in artifact.list_aside():
    text = artifacts.read_recipe(folder)
    if text is not None:
      changed = recipe.differences(json.loads(text))
      run.say(
        f"{recipe.stage}: {name} was begun with other settings"
        f" ({'; '.join(changed[:MOST])}{' ...' if len(changed) > MOST else ''}) and"
        f" holds {describe(run, folder)}, of which nothing can be used here. It is kept"
        f" as {folder.name} ({_measure(folder):,} bytes on this machine), and deleted"
        f" when {name} is complete. To continue it, stop this run and restore those"
        " settings; to keep both, give another --workdir."
      )


def describe(run: Any, folder: Path) -> str:
  """Says how far an interrupted stage has come; "" if it must begin anew."""
  done = [text for kind in KINDS if (text := kind(run, folder))]
  if not done:
    return ""
  times = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
  first, last = (
    datetime.datetime.fromtimestamp(time).isoformat(" ", "minutes")
    for time in (min(times), max(times))
  )
  return f"{', '.join(done)} (begun {first}, last written {last})"


def _find_checkpoint(run: Any, folder: Path) -> str:
  """Describes the last checkpoint of `seed`, `align` and `tune`."""
  checkpoints = run.checkpoints(folder)
  names = [path.name for path in checkpoints.iterdir()] if checkpoints.exists() else []
  steps = [int(name) for name in names if name.isdigit()]
  return f"a checkpoint of step {max(steps):,}" if steps else ""


def _find_scores(run: Any, folder: Path) -> str:
  count = len(list(folder.glob("passes/*/part-*.json")))
  return f"scored parts: {count:,}" if count else ""


def _find_checked(run: Any, folder: Path) -> str:
  if (folder / "pool_summary.json").exists():
    return "a complete check"
  count = checked_parts.count_parts(folder / "pool.parquet")
  return f"checked rows: {count * pool_table.GROUP_ROWS:,}" if count else ""


def _find_prepared(run: Any, folder: Path) -> str:
  count = len(list(folder.glob(f"{prepared_pool.NAME}-train.array_record-*")))
  return f"prepared files: {count:,}" if count else ""


# Each describes what one kind of stage can resume from. Other stages begin anew.
KINDS: tuple[Callable[[Any, Path], str], ...] = (
  _find_checkpoint,
  _find_scores,
  _find_checked,
  _find_prepared,
)


def _move(run: Any, source: Path, target: Path) -> None:
  shutil.rmtree(target, ignore_errors=True)
  if run.bucket is not None:
    run.bucket.move(source, target)
  source.rename(target)


def _measure(folder: Path) -> int:
  return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
