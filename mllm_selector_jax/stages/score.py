"""score: every usable row's signals and embedding, from one forward pass."""

from pathlib import Path

import numpy as np

from mllm_selector_jax import artifacts
from mllm_selector_jax.scoring import engine
from mllm_selector_jax.stages import base
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.types import InputError


def score(run: Run) -> None:
  """Makes `scores/` with the seed model, or with `score.model` where given."""
  cfg = run.cfg.score
  base.check_row_length("score", cfg.row_length)
  given = cfg.model is not None
  path = Path(cfg.model) if given else run.workdir.seed.path / "hf"
  if given and not path.is_dir():
    raise InputError(f"score.model={cfg.model}: there is no such directory.")
  model = base.hash_model(path) if given else run.workdir.seed.digest()
  recipe = run.recipe(
    "score",
    {"model": base.model_config(run), "signals": cfg.signals},
    {"pool": run.workdir.pool.digest(), "model": model},
  )

  def build(folder):
    pool = base.open_pool(run)
    reader = base.open_reader(run, pool)
    config, params = base.read_model(run, path)
    rows = np.flatnonzero(pool.ok)
    options = engine.ScoreOptions(
      row_length=cfg.row_length,
      batch_rows=cfg.batch_rows,
      part_rows=cfg.part_rows,
      threads=cfg.threads,
      seed=run.cfg.rng_seed,
      signals=tuple(cfg.signals),
    )
    tuned = np.array([], int) if given else _seed_rows(run)
    with run.progress("score", "row", leave=False) as progress:
      counts = engine.score_pool(
        config,
        params,
        reader,
        rows,
        tuned,
        options,
        run.mesh,
        folder,
        progress,
        run.stopped,
      )
    artifacts.write_json(folder / "summary.json", counts)
    aside = int((~pool.ok).sum())
    run.say(
      f"score: {len(pool.ok):,} rows = {counts['scored']:,} scored"
      f" + {aside:,} set aside; {counts['not_finite']:,} with a loss that is not"
      f" finite; packing filled {counts['tokens'] / counts['executed_tokens']:.0%}"
    )

  run.make(run.workdir.scores, recipe, build)


def _seed_rows(run: Run) -> np.ndarray:
  import pyarrow.parquet as pq

  return pq.read_table(run.workdir.seed.path / "rows.parquet")["row"].to_numpy()
