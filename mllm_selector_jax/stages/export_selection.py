"""export-selection: an arm's kept rows in the forms that trainers read."""

from pathlib import Path

import numpy as np

from mllm_selector_jax import artifacts
from mllm_selector_jax.data import export
from mllm_selector_jax.stages import base, card
from mllm_selector_jax.stages.compare.seeds import at_arm
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.types import InputError

WEIGHTS = "weights"
CARD = "card"
FORMATS = (*export.EXPORTS, WEIGHTS, CARD)
COLUMNS = ("row", "id", "hash", "necessity", "rank", "group", "group_name")


def export_selection(run: Run) -> None:
  """Makes `arms/<name>/exports/`: the kept rows as trainers read them."""
  cfg = run.cfg.export_selection
  wanted = tuple(base.split_files(cfg.formats)) or FORMATS[:2]
  unknown = [name for name in wanted if name not in FORMATS]
  if unknown:
    raise InputError(
      f"export_selection.formats={wanted!r}: allowed are {', '.join(FORMATS)}."
    )
  with at_arm(run, cfg.arm) as selected:
    _export(run, cfg.arm, wanted, selected)


def _export(run: Run, arm: str, wanted: tuple[str, ...], selected: dict) -> None:
  selection = run.workdir.selection(arm)
  images = base.image_folders(run)
  recipe = run.recipe(
    "export-selection",
    {"formats": wanted, "images": images.folders},
    {"selection": selection.digest(), "pool": run.workdir.pool.digest()},
  )
  made = run.workdir.exports(arm)

  def build(folder: Path):
    table = _read_kept(selection.path / "selection.parquet")
    pool = base.open_pool(run)
    if "hash" not in table.column_names:  # a selection of an older version
      rows = table["row"].to_numpy()
      table = table.append_column("hash", [pool.hash[rows].tolist()])
    kept = export.Kept(
      pool,
      table["row"].to_pylist(),
      images,
      folder / "images",
      made.path / "images",
    )
    for name in wanted:
      (folder / name).mkdir(exist_ok=True)
      if name == CARD:
        card.write_card(run, arm, selected, folder / name)
      elif name == WEIGHTS:
        artifacts.write_table(folder / name / "weights.parquet", table.select(COLUMNS))
      else:
        export.EXPORTS[name](kept, folder / name)
    run.say(
      f"export-selection: {len(kept.rows):,} rows as {', '.join(wanted)}; their images"
      f" are in {kept.images}"
    )

  run.make(made, recipe, build)


def _read_kept(path: Path):
  import pyarrow.parquet as pq

  table = pq.read_table(path)
  return table.filter(np.asarray(table["kept"]))
