"""prepare: writes the pool in the format that is fastest to read at random."""

import os
import shutil

from mllm_selector_jax.data.pool import prepared_pool as preparing
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.pipeline.check_pool import make_pool
from mllm_selector_jax.runs import peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError


def prepare(run: Run) -> None:
  """Makes `prepared/`, a TFDS data set of the pool's records and image bytes."""
  make_pool(run)
  shard_rows = run.cfg.prepare.shard_rows
  workers = run.cfg.prepare.workers or os.cpu_count() or 1
  if shard_rows < 1 or workers < 1:
    raise InputError(
      "prepare.shard_rows must be 1 or more, and prepare.workers 0 or more."
    )
  if run.bucket is not None and peers.number_and_count()[1] > 1:
    raise InputError(
      "prepare: several processes write one folder, which a workdir in a bucket does"
      " not have. Give a folder as --workdir, or run one process."
    )
  table = run.workdir.path / "pool.parquet"
  recipe = run.recipe(
    "prepare",
    {"shard_rows": shard_rows, "images": base_model.image_folders(run).folders},
    {"pool": run.workdir.pool.digest()},
  )

  def build(folder):
    with run.progress("prepare", "row") as progress:
      preparing.write_shards(
        table,
        base_model.image_folders(run),
        folder,
        shard_rows,
        workers,
        progress,
        peers.number_and_count(),
      )
    peers.meet("prepare: all files are written")
    if peers.is_first_process():
      rows = len(base_model.open_pool(run))
      preparing.write_description(folder, rows, shard_rows)
      for name in run.workdir.pool.files:
        shutil.copyfile(table.with_name(name), folder / name)

  run.make(run.workdir.prepared, recipe, build, together=True)
  run.say(
    f"prepare: read it with --config.pool.data={run.workdir.prepared.path}; no image"
    " folder is needed."
  )
