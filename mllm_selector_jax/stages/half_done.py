"""What an interrupted stage left that was begun with other settings.

As a finished artifact, it is kept until the new one is whole: beside it, in
`<name>.<digest>.partial`, where it is found again when the settings are set back.
"""

import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm_selector_jax import artifacts
from mllm_selector_jax.data import checked_parts, prepare, table

if TYPE_CHECKING:
  from mllm_selector_jax.stages.context import Run

MOST = 4  # differences that are told


def keep_others(
  run: "Run", artifact: artifacts.Artifact, recipe: artifacts.Recipe
) -> None:
  """Sets aside what was begun with another recipe, and takes back what was with this.

  The first process alone does it, before an artifact is made.

  Args:
    run: the invocation.
    artifact: that is about to be made.
    recipe: what it follows from.
  """
  wanted = recipe.to_text()
  found = artifacts.read_recipe(artifact.partial)
  if found not in (None, wanted):
    if describe(run, artifact.partial):
      _move(run, artifact.partial, artifact.aside(found))
    else:
      shutil.rmtree(artifact.partial)
  mine = artifact.aside(wanted)
  if artifacts.read_recipe(mine) == wanted and not artifact.partial.exists():
    _move(run, mine, artifact.partial)
  name = run.workdir.name(artifact)
  for folder in artifact.list_aside():
    text = artifacts.read_recipe(folder)
    if text is not None:
      changed = recipe.differences(json.loads(text))
      run.say(
        f"{recipe.stage}: {name} was begun with other settings"
        f" ({'; '.join(changed[:MOST])}{' ...' if len(changed) > MOST else ''}) and"
        f" holds {describe(run, folder)}, of which nothing can be used here. It is kept"
        f" as {folder.name} ({_measure(folder):,} bytes on this machine), and removed"
        f" when {name} is whole. To go on with it, stop this run and set that back; to"
        " have both, give another --workdir."
      )


def describe(run: "Run", folder: Path) -> str:
  """How far an interrupted stage has come; "" if it has nothing to go on from."""
  done = [text for kind in KINDS if (text := kind(run, folder))]
  if not done:
    return ""
  times = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
  first, last = (
    datetime.datetime.fromtimestamp(time).isoformat(" ", "minutes")
    for time in (min(times), max(times))
  )
  return f"{', '.join(done)} (begun {first}, last written {last})"


def _find_checkpoint(run: "Run", folder: Path) -> str:
  """Of seed, align and tune."""
  place = run.checkpoints(folder)
  steps = [path.name for path in place.iterdir()] if place.exists() else []
  steps = [int(name) for name in steps if name.isdigit()]
  return f"a checkpoint of step {max(steps):,}" if steps else ""


def _find_scores(run: "Run", folder: Path) -> str:
  count = len(list(folder.glob("passes/*/part-*.json")))
  return f"scored parts: {count:,}" if count else ""


def _find_checked(run: "Run", folder: Path) -> str:
  if (folder / "pool_summary.json").exists():
    return "a whole check"
  count = checked_parts.count_parts(folder / "pool.parquet")
  return f"checked rows: {count * table.GROUP_ROWS:,}" if count else ""


def _find_prepared(run: "Run", folder: Path) -> str:
  count = len(list(folder.glob(f"{prepare.NAME}-train.array_record-*")))
  return f"prepared files: {count:,}" if count else ""


# What a stage goes on from, by what lies in its folder. Other stages begin anew.
KINDS: tuple[Callable[[Any, Path], str], ...] = (
  _find_checkpoint,
  _find_scores,
  _find_checked,
  _find_prepared,
)


def _move(run: "Run", source: Path, target: Path) -> None:
  shutil.rmtree(target, ignore_errors=True)
  if run.bucket is not None:
    run.bucket.move(source, target)
  source.rename(target)


def _measure(folder: Path) -> int:
  return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
