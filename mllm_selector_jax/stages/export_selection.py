"""export-selection: an arm's kept rows in the forms that trainers read."""

import shutil
from pathlib import Path

import numpy as np

from mllm_selector_jax import artifacts
from mllm_selector_jax.data import export, listing
from mllm_selector_jax.stages import base, card, exports
from mllm_selector_jax.stages.compare.seeds import at_arm
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.stages.exports import BY_PATH, CARD, FORMATS, WEIGHTS
from mllm_selector_jax.types import InputError

IMAGES = "images"  # that lie inside the pool's files, of a format that names paths
COLUMNS = ("row", "id", "hash", "necessity", "rank", "group", "group_name")


def export_selection(run: Run) -> None:
  """Makes `arms/<name>/exports/<format>/`: the kept rows as trainers read them."""
  arm, wanted = choose_arm(run), choose_forms(run.cfg.export_selection.formats)
  with at_arm(run, arm) as selected:
    for form in wanted:
      _export(run, arm, form, selected)
  exports.tell_stale(run, arm)


def choose_arm(run: Run) -> str:
  """The arm of --arm, or of the config.

  Raises:
    InputError: they name two.
  """
  own, default = run.cfg.export_selection.arm, "main"
  if run.arm and own not in (run.arm, default):
    raise InputError(
      f"--arm={run.arm} and export_selection.arm={own!r} name two arms; give one."
    )
  return run.arm or own


def choose_forms(formats: str | tuple[str, ...] | None) -> tuple[str, ...]:
  """The formats of `export_selection.formats`, verbatim and llava unless given.

  Raises:
    InputError: one is unknown.
  """
  wanted = tuple(dict.fromkeys(listing.split_names(formats))) or FORMATS[:2]
  if any(form not in FORMATS for form in wanted):
    raise InputError(
      f"export_selection.formats={','.join(wanted)}: allowed are {', '.join(FORMATS)}."
    )
  return wanted


def _export(run: Run, arm: str, form: str, selected: dict) -> None:
  selection = run.workdir.selection(arm)
  images = base.image_folders(run)
  recipe = run.recipe(
    "export-selection",
    {"format": form, "images": images.folders},
    {"selection": selection.digest(), "pool": run.workdir.pool.digest()},
  )
  made = run.workdir.export(arm, form)

  def build(folder: Path):
    table = _read_kept(selection.path / "selection.parquet")
    pool = base.open_pool(run)
    rows = table["row"].to_pylist()
    place = f"{len(rows):,} rows as {form} in {made.path}"
    if form == CARD:
      card.write_card(run, arm, selected, folder)
    elif form == WEIGHTS:
      if "hash" not in table.column_names:  # a selection of an older version
        table = table.append_column("hash", [pool.hash[rows].tolist()])
      artifacts.write_table(folder / "weights.parquet", table.select(COLUMNS))
    else:
      inside, final = folder / IMAGES, made.path / IMAGES
      kept = export.Kept(pool, rows, images, inside, final)
      export.EXPORTS[form](kept, folder)
      if form in BY_PATH:
        place += f"; their images are in {kept.images}"
      else:
        shutil.rmtree(inside, ignore_errors=True)  # the format holds their bytes
      for what, count in sorted(kept.ignored.items()):
        place += f"; {form} does not read {what} ({count:,} rows, kept in the file)"
    run.say(f"export-selection: {place}")

  run.make(made, recipe, build)
  # Earlier versions kept one provenance for all formats.
  (made.path.parent / artifacts.MARKER).unlink(missing_ok=True)


def _read_kept(path: Path):
  import pyarrow.parquet as pq

  table = pq.read_table(path)
  return table.filter(np.asarray(table["kept"]))
