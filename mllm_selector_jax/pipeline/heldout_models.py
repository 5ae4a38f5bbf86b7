"""What models that have not seen a row say of its answer: makers of held-out losses.

A bound says which of them it needs (`Bound.held_out`). `thorough`: the pool in two
halves; a model tuned on each scores the other. `probe`: a head refitted on the stored
embeddings, fold by fold. Both give `doubts.parquet`, of which a selection makes
suspects group by group.
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
from mllm_selector_jax.pipeline.tuning_recipe import recipe_config
from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.scoring import passes, score_table
from mllm_selector_jax.selection import draws, heldout_loss
from mllm_selector_jax.selection.bounds import probe
from mllm_selector_jax.types import InputError

SECTION = "seed"  # whose recipe the models of the halves are tuned by
HALVES = 2
_STEP = 1 << 12  # rows whose text is read at once


class Maker(NamedTuple):
  """How a held-out loss is made.

  Attributes:
    make: makes `doubts/<name>/`, and what it follows from, and gives its digest.
    timed: names of the artifacts that this takes, but for the last.
  """

  make: Callable[[Run, PoolTable, score_table.ScoreTable], str]
  timed: tuple[str, ...] = ()


def make_doubts(run: Run, maker: str) -> dict[str, str]:
  """Makes `doubts/<maker>/`.

  Args:
    run: of a workdir with pool and scores.
    maker: a name of `MAKERS`, as a bound's `held_out` gives it.

  Returns:
    What a selection follows from, beside scores and pool: a digest by its name.

  Raises:
    InputError: there is no such maker.
  """
  if maker not in MAKERS:
    raise InputError(
      f"select.bound needs the held-out loss {maker!r}; there are {', '.join(MAKERS)}."
    )
  pool = base_model.open_pool(run)
  scores = score_table.read_scores(run.workdir.scores.path)
  return {"doubts": MAKERS[maker].make(run, pool, scores)}


def read_flops(run: Run, maker: str) -> float:
  """What a held-out loss took beside the scoring; 0 for "", where there is none."""
  if not maker:
    return 0.0
  path = run.workdir.doubts(maker).path / "summary.json"
  return json.loads(path.read_text())["flops"]


def add_seconds(times: dict[str, float], maker: str, place: str = "") -> float | None:
  """How long that took.

  Args:
    times: of `times.read_times`.
    maker: a name of `MAKERS`; "" where there is no held-out loss.
    place: the folder of the scores, by which the names begin.

  Returns:
    Seconds, None where they are not known.
  """
  if not maker:
    return 0.0
  wanted = [f"doubts/{maker}", *MAKERS[maker].timed]
  found = [times.get(f"{place}{name}") for name in wanted]
  return None if None in found else float(sum(found))


def make_thorough(run: Run, pool: PoolTable, scores: score_table.ScoreTable) -> str:
  """Tunes a model on each half, scores the other with it, and joins the two."""
  part = _draw_parts(run, pool, scores, HALVES, "thorough")
  folds = [run.workdir.at_fold(number + 1) for number in range(HALVES)]
  for number, place in enumerate(folds):
    tuned, held_out = scores.row[part != number], scores.row[part == number]
    _tune_half(run, place, pool, tuned)
    _score_half(run, place, pool, held_out)
  inputs = {place.scored.name: place.scores.digest() for place in folds}
  artifact = run.workdir.doubts("thorough")

  def build(folder):
    found = [score_table.read_scores(place.scores.path) for place in folds]
    row = np.concatenate([each.row for each in found])
    loss = np.concatenate([each.signal("loss") for each in found])
    right = np.concatenate([each.signal("accuracy") for each in found])
    _write(folder, row, heldout_loss.Doubt(loss, right), _count_flops(run, pool, folds))

  run.make(artifact, run.recipe("select", {"halves": HALVES}, inputs), build)
  return artifact.digest()


def _count_flops(run: Run, pool: PoolTable, folds: list[Workdir]) -> float:
  config = huggingface.read_config(
    base_model.base_path(run), dtype=base_model.dtype(run)
  )
  section, total = run.cfg[SECTION], 0.0
  each = flops.row_flops(flops.make_row_rates(config, section), pool)
  for place in folds:
    tuned = flops.read_rows(place.seed.path)
    total += float(each[tuned].sum()) * section.epochs
    summary = json.loads((place.scores.path / score_pool.SUMMARY).read_text())
    rows = score_table.read_scores(place.scores.path).row
    total += flops.pass_flops(config, pool, rows, summary["passes"])
  return total


def _draw_parts(run, pool, scores, count, purpose) -> Int[np.ndarray, " n"]:
  """Parts by content, over which the clusters of the pool are spread evenly."""
  key = clusters.read_keys(pool, scores.row)
  tie = draws.draw(run.cfg.rng_seed, key, purpose)
  if scores.embeddings().shape[1]:
    groups = clusters.read_clusters(run, pool, scores, 0, run.cfg.rng_seed).index + 1
  else:
    groups = pool.source.codes[scores.row] + 1
  return heldout_loss.draw_halves(tie, groups, count)


def _identify(pool: PoolTable, rows: np.ndarray) -> str:
  return artifacts.hash_json([pool.hash[row] for row in rows])


def _tune_half(run: Run, place: Workdir, pool: PoolTable, rows: np.ndarray) -> None:
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
    title = f"{SECTION} {place.scored.name}"
    fine_tune.fine_tune(run, section, rows, folder, title)

  run.make(place.seed, recipe, build, together=True)


def _score_half(run: Run, place: Workdir, pool: PoolTable, rows: np.ndarray) -> None:
  recipe = run.recipe(
    "select",
    {"model": base_model.model_config(run)},
    {
      "pool": run.workdir.pool.digest(),
      "model": place.seed.digest(),
      "rows": _identify(pool, rows),
    },
  )

  def build(folder):
    options, work = score_pool.make_options(run.cfg), folder / score_pool.WORK
    models = {"seed": place.seed.path / "hf"}
    title = f"score {place.scored.name}"
    main = [passes.MAIN]
    counts = score_pool.run_passes(run, work, models, main, rows, options, pool, title)
    if not peers.is_first_process():
      return
    parts = {"main": work / "main"}, {"main": counts["main"]["parts"]}
    nobody = np.zeros(0, np.int64)  # of these rows was seen in tuning
    scored = score_table.read_passes(*parts, pool, nobody, ("loss", "accuracy"))
    score_table.write_table(folder, [scored], pool.id, options.part_rows)
    artifacts.write_json(folder / score_pool.SUMMARY, {"passes": counts})
    score_pool.clear(work)

  run.make(place.scores, recipe, build, together=True)


def make_probe(run: Run, pool: PoolTable, scores: score_table.ScoreTable) -> str:
  """Refits a head on the embeddings; rows of several turns are left alone."""
  part = _draw_parts(run, pool, scores, probe.FOLDS, "probe")
  artifact = run.workdir.doubts("probe")
  inputs = {"scores": run.workdir.scores.digest(), "pool": run.workdir.pool.digest()}
  config = {"model": base_model.model_config(run), "folds": probe.FOLDS}

  def build(folder):
    embeddings = scores.embeddings()
    if not embeddings.shape[1]:
      raise InputError(
        "select.bound probe needs embeddings, which the scores do not hold; run the"
        " score stage again, or choose another bound."
      )
    usable = clusters.find_finite(embeddings) & (pool.turns[scores.row] == 1)
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = np.where(usable[:, None], embeddings / np.maximum(length, 1e-30), 0)
    label = np.full(len(scores.row), -1, np.int64)
    label[usable] = _first_tokens(run, pool, scores.row[usable])
    groups = clusters.read_clusters(run, pool, scores, 0, run.cfg.rng_seed).index + 1
    key = clusters.read_keys(pool, scores.row)
    tie = draws.draw(run.cfg.rng_seed, key, "probe")
    found = probe.probe(unit, label, part, groups, tie)
    _write(folder, scores.row, found, probe.count_flops(unit.shape[1], label, groups))

  run.make(artifact, run.recipe("select", config, inputs), build)
  return artifact.digest()


def _first_tokens(run: Run, pool: PoolTable, rows: np.ndarray) -> np.ndarray:
  """The token that each row's first answer begins with."""
  encoder, _ = base_model.read_encoder(run)
  found = []
  with run.progress("read answers", "row") as progress:
    for start in range(0, len(rows), _STEP):
      texts = [
        (
          record_schemas.read_content(pool.record(row)).conversations,
          pool.image[row] is not None,
        )
        for row in rows[start : start + _STEP]
      ]
      for sample in encoder.encode_many(texts):
        found.append(int(sample.tokens[sample.supervised][0]))
      progress(len(found), len(rows))
  return np.array(found, np.int64)


def _write(
  folder: Path, row: np.ndarray, found: heldout_loss.Doubt, spent: float
) -> None:
  import pyarrow as pa

  order = np.argsort(row)
  columns = {"row": row[order], "loss": found.loss[order], "right": found.right[order]}
  artifacts.write_table(folder / "doubts.parquet", pa.table(columns))
  known = int(np.isfinite(found.loss).sum())
  summary = {"rows": len(row), "known": known, "flops": spent}
  artifacts.write_json(folder / "summary.json", summary)


_FOLDS = tuple(
  f"rounds/fold-{number + 1}/{part}"
  for number in range(HALVES)
  for part in ("seed", "scores")
)
MAKERS = {"probe": Maker(make_probe), "thorough": Maker(make_thorough, _FOLDS)}
