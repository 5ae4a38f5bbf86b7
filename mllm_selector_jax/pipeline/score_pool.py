"""Makes the score table: every usable row's signals and embedding."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax.inputs import base_model, guard
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.pipeline.scored_models import check_reference, find_given
from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring import engine, passes, score_table, signals

NAMED = 20  # rows with a loss that is not finite, in the summary
WORK, SUMMARY = "passes", "summary.json"


def make_scores(run: Run) -> None:
  """Makes `scores/` with the seed model, or with `score.model` where given."""
  cfg = run.cfg.score
  run.workdir.pool.digest()  # says what to run where there is none
  guard.refuse_aside(run)
  if cfg.table is not None:
    _bring_in(run, find_given(cfg.table, "score.table"))
    return
  models = {"seed": find_given(cfg.model, "score.model") or _seed_model(run)}
  wanted = passes.list_passes(base_model.scored_signals(run.cfg))
  inputs = {"pool": run.workdir.pool.digest(), "model": _identity(run)}
  inputs |= signals.LOOKUP.identify(*base_model.scored_signals(run.cfg))
  for remark in huggingface.list_remarks(models["seed"]):
    run.say(f"score: the model: {remark}", once=True)
  if any(own.model == "reference" for own in wanted):
    check_reference(run.cfg)
    models["reference"] = find_given(cfg.reference, "score.reference")
    inputs["reference"] = base_model.hash_model(models["reference"])
  config = {
    "model": base_model.model_config(run),
    "signals": list(base_model.scored_signals(run.cfg)),
  }
  recipe = run.recipe("score", config, inputs)

  def build(folder):
    _build(run, folder, models, wanted, recipe)

  run.make(run.workdir.scores, recipe, build, together=True)


def make_options(cfg: Any) -> engine.ScoreOptions:
  """How a pool is scored, of the whole config."""
  return engine.ScoreOptions(
    row_length=cfg.score.row_length,
    batch_rows=cfg.score.batch_rows,
    part_rows=cfg.score.part_rows,
    threads=cfg.score.threads,
    share=cfg.score.share,
    seed=cfg.rng_seed,
    signals=base_model.scored_signals(cfg),
  )


def _bring_in(run: Run, source: Path) -> None:
  """Makes `scores/` from a table made elsewhere, by the rows' hashes."""
  inputs = {
    "pool": run.workdir.pool.digest(),
    "table": artifacts.hash_folder(source),
  }
  recipe = run.recipe(
    "score", {"signals": list(base_model.scored_signals(run.cfg))}, inputs
  )

  def build(folder):
    pool = base_model.open_pool(run)
    found = score_table.read_elsewhere(
      source, pool, pool.ok, base_model.scored_signals(run.cfg)
    )
    finite = score_table.write_table(folder, [found], pool.id, run.cfg.score.part_rows)
    rows = np.sort(found.row)
    summary = {"scored": len(rows), "carried": len(rows), "passes": {}}
    summary["not_finite"] = int((~finite).sum())
    artifacts.write_json(folder / SUMMARY, summary)
    run.say(f"score: {len(rows):,} rows have their scores from {source}.")
    _tell(run, pool, summary, rows[~finite])

  run.make(run.workdir.scores, recipe, build)


def _build(run, folder: Path, models, wanted, recipe: artifacts.Recipe) -> None:
  if (folder / SUMMARY).exists():  # broken off while tidying up
    if peers.is_first_process():
      clear(folder / WORK)
    return
  cfg, options = run.cfg.score, make_options(run.cfg)
  pool = base_model.open_pool(run)
  carried = _find_carried(run, pool, recipe)
  rows = np.flatnonzero(pool.ok)
  if carried is not None:
    rows = np.setdiff1d(rows, carried.row)
    run.say(
      f"score: {len(carried.row):,} rows have their scores from the table before;"
      f" {len(rows):,} are new."
    )
  counts = run_passes(run, folder / WORK, models, wanted, rows, options, pool)
  if not peers.is_first_process():
    return
  scored = [] if carried is None else [carried]
  if len(rows):
    folders = {own.name: folder / WORK / own.name for own in wanted}
    numbers = {name: found["parts"] for name, found in counts.items()}
    tuned = np.array([], int) if cfg.model is not None else _seed_rows(run)
    scored.append(
      score_table.read_passes(folders, numbers, pool, tuned, options.signals)
    )
  finite = score_table.write_table(folder, scored, pool.id, options.part_rows)
  every = np.sort(np.concatenate([part.row for part in scored]))
  bad = every[~finite]
  summary = {
    "scored": len(every),
    "carried": 0 if carried is None else len(carried.row),
    "not_finite": len(bad),
    "passes": counts,
  }
  artifacts.write_json(folder / SUMMARY, summary)  # last: the table is whole
  _tell(run, pool, summary, bad)
  clear(folder / WORK)


def clear(work: Path) -> None:
  """Removes the parts, once the table is whole."""
  shutil.rmtree(work, ignore_errors=True)


def run_passes(
  run: Run,
  work: Path,
  models: dict[str, Path],
  wanted: list[passes.Pass],
  rows: np.ndarray,
  options: engine.ScoreOptions,
  pool: Any,
  title: str = "score",
) -> dict[str, Any]:
  """Makes the parts of these passes over these rows in `work`; resumes.

  Args:
    run: the invocation.
    work: holds a folder a pass.
    models: their directories by the name that a pass gives.
    wanted: the passes.
    rows: pool rows, ascending.
    options: how they are scored.
    pool: the checked pool.
    title: of the progress.

  Returns:
    By pass what `engine.run_pass` counts.
  """
  counts: dict[str, Any] = {}
  if not len(rows):
    return counts
  reader = base_model.open_reader(run, pool)
  for name, path in models.items():
    config, params = base_model.read_model(run, path)
    for own in wanted:
      if own.model != name:
        continue
      (work / own.name).mkdir(parents=True, exist_ok=True)
      named = title if own is passes.MAIN else f"{title} {own.name}"
      with run.progress(named, "row", leave=False) as progress:
        counts[own.name] = engine.run_pass(
          config,
          params,
          reader,
          rows,
          options,
          run.mesh,
          work / own.name,
          own,
          progress,
          run.stopped,
          lambda text: run.say(f"score: {text}"),
        )
    del params
  return counts


def _find_carried(
  run: Run, pool, recipe: artifacts.Recipe
) -> score_table.Scored | None:
  """What the table before gives, where it differs in nothing but the pool."""
  made = run.workdir.scores.provenance()
  if made is None or recipe.differences(made) != ["pool changed"]:
    return None
  if run.workdir.scores.why_stale(recipe) != ["pool changed"]:
    return None
  carried = score_table.read_carried(run.workdir.scores.path, pool, pool.ok)
  return carried if len(carried.row) else None


def _tell(run: Run, pool, summary: dict[str, Any], bad: np.ndarray) -> None:
  aside = int((~pool.ok).sum())
  text = (
    f"score: {len(pool.ok):,} rows = {summary['scored']:,} scored + {aside:,} set aside"
  )
  if main := summary["passes"].get("main"):
    filled = main["tokens"] / main["executed_tokens"]
    text += f"; packed rows are {filled:.0%} full"
  run.say(text)
  if len(bad):
    named = ", ".join(f"row {row} (id {pool.id[row]})" for row in bad[:NAMED])
    more = f" and {len(bad) - NAMED:,} more" if len(bad) > NAMED else ""
    run.say(
      f"score: the loss of {len(bad):,} rows is not finite, so they are not"
      f" selected: {named}{more}."
    )


def _seed_model(run: Run) -> Path:
  return run.workdir.seed.path / "hf"


def _identity(run: Run) -> str:
  if run.cfg.score.model is None:
    return run.workdir.seed.digest()
  return base_model.hash_model(Path(run.cfg.score.model))


def _seed_rows(run: Run) -> np.ndarray:
  import pyarrow.parquet as pq

  return pq.read_table(run.workdir.seed.path / "rows.parquet")["row"].to_numpy()
