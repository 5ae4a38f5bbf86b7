"""Makes held-out losses: each row is judged by a model that has not seen it.

A bound names the held-out loss that it needs (`Bound.held_out`). For `thorough`, one
model is tuned on each half of the pool and scores the other half. For `probe`, a
linear head is fitted to the stored embeddings by cross-validation. Both write
`doubts.parquet`, from which a selection decides in each group which rows are suspect.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.pipeline import clusters, fine_tune, flops, score_pool
from mllm_selector_jax.pipeline.kept_work import oversee
from mllm_selector_jax.pipeline.tuning_recipe import recipe_config
from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.scoring import passes, score_table
from mllm_selector_jax.selection import draws, heldout_loss
from mllm_selector_jax.selection.bounds import probe
from mllm_selector_jax.selection.pairwise.unit_rows import Stacked, UnitRows
from mllm_selector_jax.types import InputError, Sample

SECTION = "seed"  # the section whose recipe tunes the models of the halves
HALVES = 2
_STEP = 1 << 12  # rows that are read and tokenised at once


class Maker(NamedTuple):
  """How a held-out loss is made.

  Attributes:
    make: Makes `doubts/<name>/` and the artifacts it depends on; returns its digest.
    timed: Names of the artifacts that it depends on, whose seconds count too.
  """

  make: Callable[[Run, PoolTable, score_table.ScoreTable], str]
  timed: tuple[str, ...] = ()


def make_doubts(run: Run, maker: str) -> dict[str, str]:
  """Make `doubts/<maker>/`.

  Args:
    run: A run with a checked pool and scores.
    maker: A name of `MAKERS`, as in a bound's `held_out`.

  Returns:
    Digests by name, to add to the inputs of the selection.

  Raises:
    InputError: There is no such maker.
  """
  if maker not in MAKERS:
    raise InputError(
      f"select.bound needs the held-out loss {maker!r}; there are {', '.join(MAKERS)}."
    )
  pool = base_model.open_pool(run)
  scores = score_table.read_scores(run.workdir.scores.path)
  return {"doubts": MAKERS[maker].make(run, pool, scores)}


def read_flops(run: Run, maker: str) -> float:
  """Return the FLOPs of a held-out loss, beside the scoring; 0 if `maker` is ""."""
  if not maker:
    return 0.0
  path = run.workdir.doubts(maker).path / "summary.json"
  return json.loads(path.read_text())["flops"]


def add_seconds(times: dict[str, float], maker: str, prefix: str = "") -> float | None:
  """Return the seconds that a held-out loss took.

  Args:
    times: Seconds by artifact, from `times.read_times`.
    maker: A name of `MAKERS`; "" if there is no held-out loss.
    prefix: The folder of the scores, with which the names of the artifacts begin.

  Returns:
    The seconds, or None if those of an artifact are not known.
  """
  if not maker:
    return 0.0
  names = [f"{prefix}{name}" for name in (f"doubts/{maker}", *MAKERS[maker].timed)]
  if any(name not in times for name in names):
    return None
  return float(sum(times[name] for name in names))


def make_thorough(run: Run, pool: PoolTable, scores: score_table.ScoreTable) -> str:
  """Tune a model on each half, score the other half with it, and join the scores.

  Returns:
    The digest of `doubts/thorough/`.
  """
  part = _draw_parts(run, pool, scores, HALVES, "thorough")
  folds = [run.workdir.at_fold(number + 1) for number in range(HALVES)]
  for number, fold in enumerate(folds):
    tuned, held_out = scores.row[part != number], scores.row[part == number]
    _tune_half(run, fold, pool, tuned)
    _score_half(run, fold, pool, held_out)
  inputs = {}
  for fold in folds:
    assert fold.scored is not None
    inputs[fold.scored.name] = fold.scores.digest()
  artifact = run.workdir.doubts("thorough")

  def build(folder):
    tables = [score_table.read_scores(fold.scores.path) for fold in folds]
    row = np.concatenate([table.row for table in tables])
    loss = np.concatenate([table.signal("loss") for table in tables])
    right = np.concatenate([table.signal("accuracy") for table in tables])
    _write(folder, row, heldout_loss.Doubt(loss, right), _count_flops(run, pool, folds))

  run.make(artifact, run.recipe("select", {"halves": HALVES}, inputs), build)
  return artifact.digest()


def _count_flops(run: Run, pool: PoolTable, folds: list[Workdir]) -> float:
  config = huggingface.read_config(
    base_model.base_path(run), dtype=base_model.dtype(run)
  )
  section, total = run.cfg[SECTION], 0.0
  row_costs = flops.row_flops(config, flops.make_row_rates(config, section), pool)
  for fold in folds:
    tuned = flops.read_rows(fold.seed.path)
    total += float(row_costs[tuned].sum()) * section.epochs
    summary = json.loads((fold.scores.path / score_pool.SUMMARY).read_text())
    rows = score_table.read_scores(fold.scores.path).row
    total += flops.pass_flops(config, pool, rows, summary["passes"])
  return total


def _draw_parts(run, pool, scores, count, purpose) -> Int[np.ndarray, " n"]:
  """Assign each scored row to a part at random, evenly within each cluster.

  The draw depends on the content of a row, not on its position. Without embeddings,
  sources take the place of clusters.
  """
  key = clusters.read_keys(pool, scores.row)
  tie = draws.draw(run.cfg.rng_seed, key, purpose)
  parts = scores.map_embeddings()
  if parts and parts[0].shape[1]:
    groups = clusters.read_clusters(run, pool, scores, 0, run.cfg.rng_seed).index + 1
  else:
    groups = pool.source.codes[scores.row] + 1
  return heldout_loss.draw_halves(tie, groups, count)


def _identify(pool: PoolTable, rows: np.ndarray) -> str:
  return artifacts.hash_json([pool.hash[row] for row in rows])


def _tune_half(run: Run, fold: Workdir, pool: PoolTable, rows: np.ndarray) -> None:
  section = run.cfg[SECTION]
  recipe = run.recipe(
    "select",
    {**recipe_config(section), "model": base_model.model_config(run)},
    {
      "pool": run.workdir.pool.digest(),
      "base": base_model.hash_model(base_model.base_path(run)),
      "rows": _identify(pool, rows),
    },
  )

  def build(folder):
    title = f"{SECTION} {fold.scored.name}"
    fine_tune.fine_tune(run, section, rows, folder, title)

  run.make(fold.seed, recipe, build, together=True)


def _score_half(run: Run, fold: Workdir, pool: PoolTable, rows: np.ndarray) -> None:
  recipe = run.recipe(
    "select",
    {"model": base_model.model_config(run)},
    {
      "pool": run.workdir.pool.digest(),
      "model": fold.seed.digest(),
      "rows": _identify(pool, rows),
    },
  )

  def build(folder):
    options, work = score_pool.make_options(run.cfg), folder / score_pool.WORK
    models = {"seed": fold.seed.path / "hf"}
    title = f"score {fold.scored.name}"
    main = [passes.MAIN]
    counts = score_pool.run_passes(run, work, models, main, rows, options, pool, title)
    if not peers.is_first_process():
      return
    sources = {"main": work / "main"}, {"main": counts["main"]["parts"]}
    no_rows = np.zeros(0, np.int64)  # none of the scored rows was tuned on
    scored = score_table.read_passes(*sources, pool, no_rows, ("loss", "accuracy"))
    score_table.write_table(folder, [scored], pool.id, options.part_rows)
    artifacts.write_json(folder / score_pool.SUMMARY, {"passes": counts})
    score_pool.clear(work)

  run.make(fold.scores, recipe, build, together=True)


def make_probe(run: Run, pool: PoolTable, scores: score_table.ScoreTable) -> str:
  """Fit a head to the embeddings and return the digest of `doubts/probe/`.

  Rows with several turns, and rows without a finite embedding, get no loss.
  """
  part = _draw_parts(run, pool, scores, probe.FOLDS, "probe")
  artifact = run.workdir.doubts("probe")
  inputs = {"scores": run.workdir.scores.digest(), "pool": run.workdir.pool.digest()}
  config = {"model": base_model.model_config(run), "folds": probe.FOLDS}
  recipe = run.recipe("select", config, inputs)

  def build(folder):
    parts = scores.map_embeddings()
    if not parts or not parts[0].shape[1]:
      raise InputError(
        "select.bound probe needs embeddings, which the scores do not hold; run the"
        " score stage again, or choose another bound."
      )
    vectors = UnitRows(Stacked(parts))
    usable = vectors.finite & (pool.turns[scores.row] == 1)
    label = np.full(len(scores.row), -1, np.int64)
    label[usable] = _first_tokens(run, pool, scores.row[usable])
    groups = clusters.read_clusters(run, pool, scores, 0, run.cfg.rng_seed).index + 1
    key = clusters.read_keys(pool, scores.row)
    tie = draws.draw(run.cfg.rng_seed, key, "probe")
    overseer = oversee(run, artifact.aside(recipe.to_text()), "select.bound probe")
    doubt = probe.probe(vectors, label, part, groups, tie, overseer)
    flops = probe.count_flops(vectors.shape[1], label, groups)
    _write(folder, scores.row, doubt, flops)

  run.make(artifact, recipe, build)
  return artifact.digest()


def _first_tokens(run: Run, pool: PoolTable, rows: np.ndarray) -> np.ndarray:
  """Return the first token of each row's first answer."""
  encoder = base_model.read_encoder(run)
  first_tokens = []
  with run.progress("read answers", "row") as progress:
    for start in range(0, len(rows), _STEP):
      texts = []
      for row in rows[start : start + _STEP]:
        content, sizes = (
          record_schemas.read_content(pool.record(row)),
          pool.image_sizes(row),
        )
        texts.append((encoder.boxes.write(content, sizes), sizes))
      for sample in encoder.encode_many(texts):
        assert isinstance(sample, Sample)
        first_tokens.append(int(sample.tokens[sample.supervised][0]))
      progress(len(first_tokens), len(rows))
  return np.array(first_tokens, np.int64)


def _write(
  folder: Path, row: np.ndarray, doubt: heldout_loss.Doubt, spent: float
) -> None:
  import pyarrow as pa

  order = np.argsort(row)
  columns = {"row": row[order], "loss": doubt.loss[order], "right": doubt.right[order]}
  artifacts.write_table(folder / "doubts.parquet", pa.table(columns))
  count = int(np.isfinite(doubt.loss).sum())
  summary = {"rows": len(row), "known": count, "flops": spent}
  artifacts.write_json(folder / "summary.json", summary)


_FOLDS = tuple(
  f"rounds/fold-{number + 1}/{part}"
  for number in range(HALVES)
  for part in ("seed", "scores")
)
MAKERS = {"probe": Maker(make_probe), "thorough": Maker(make_thorough, _FOLDS)}
