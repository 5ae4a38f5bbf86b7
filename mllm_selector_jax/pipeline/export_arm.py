"""Exports an arm's kept rows in the formats that trainers read."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax import listing
from mllm_selector_jax.data.pool import pool_export
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.pipeline import card
from mllm_selector_jax.pipeline.exports import BY_PATH, CARD, FORMATS, WEIGHTS
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError

IMAGES = "images"  # folder for images that were inside the pool's files
COLUMNS = ("row", "id", "hash", "necessity", "rank", "group", "group_name")


def choose_arm(run: Run) -> str:
  """Return the arm that `--arm` or the config names.

  Raises:
    InputError: They name different arms.
  """
  configured, default = run.cfg.export_selection.arm, "main"
  if run.arm and configured not in (run.arm, default):
    raise InputError(
      f"--arm={run.arm} and export_selection.arm={configured!r} name two arms; give"
      " one."
    )
  return run.arm or configured


def choose_forms(formats: Any) -> tuple[str, ...]:
  """Return the formats that `export_selection.formats` names.

  If it names none, they are `verbatim` and `llava`.

  Raises:
    InputError: A format is unknown.
  """
  forms = tuple(dict.fromkeys(listing.split_names(formats))) or FORMATS[:2]
  if any(form not in FORMATS for form in forms):
    raise InputError(
      f"export_selection.formats={','.join(forms)}: allowed are {', '.join(FORMATS)}."
    )
  return forms


def export_arm(run: Run, arm: str, form: str, selected: dict) -> None:
  """Make the export of an arm's kept rows in one format.

  Args:
    run: A run at the pool and the scores of the selection.
    arm: Name of the arm.
    form: A format of `exports.FORMATS`.
    selected: Provenance of the arm's selection.
  """
  selection = run.workdir.selection(arm)
  images = base_model.image_folders(run)
  recipe = run.recipe(
    "export-selection",
    {"format": form, "images": images.folders, "arm": run.workdir.resolve(arm)},
    {"selection": selection.digest(), "pool": run.workdir.pool.digest()},
  )
  artifact = run.workdir.export(arm, form)

  def build(folder: Path):
    table = _read_kept(selection.path / "selection.parquet")
    pool = base_model.open_pool(run)
    rows = table["row"].to_pylist()
    message = f"{len(rows):,} rows as {form} in {artifact.path}, of the selection"
    message += f" {selection.digest()[:12]}"
    if form == CARD:
      card.write_card(run, arm, selected, folder)
    elif form == WEIGHTS:
      if "hash" not in table.column_names:  # a selection of an older version
        table = table.append_column("hash", [pool.hash[rows].tolist()])
      artifacts.write_table(folder / "weights.parquet", table.select(COLUMNS))
    else:
      inside, final = folder / IMAGES, artifact.path / IMAGES
      kept = pool_export.Kept(pool, rows, images, inside, final)
      pool_export.EXPORTS[form](kept, folder)
      if form in BY_PATH:
        message += f"; their images are in {kept.images}"
      else:
        shutil.rmtree(inside, ignore_errors=True)  # the format holds their bytes
      for feature, count in sorted(kept.ignored.items()):
        message += f"; {form} ignores {feature} ({count:,} rows; the file still has it)"
    run.say(f"export-selection: {message}")

  run.make(artifact, recipe, build)
  # Earlier versions kept one provenance for all formats.
  (artifact.path.parent / artifacts.MARKER).unlink(missing_ok=True)


def _read_kept(path: Path):
  import pyarrow.parquet as pq

  table = pq.read_table(path)
  return table.filter(np.asarray(table["kept"]))
