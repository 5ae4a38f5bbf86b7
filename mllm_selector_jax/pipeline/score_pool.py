"""Makes the score table: the signals and the embedding of every usable row."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax.inputs import base_model, guard
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.pipeline.scored_models import (
  check_folder,
  check_reference,
  find_model,
)
from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring import engine, passes, score_table, signals

NAMED = 20  # rows with a non-finite loss that the message names
WORK, SUMMARY = "passes", "summary.json"


def make_scores(run: Run) -> None:
  """Make `scores/` with the seed model, or with `score.model` if it is set.

  If `score.table` is set, the scores are read from that table instead.
  """
  cfg = run.cfg.score
  run.workdir.pool.digest()  # raises if the pool was not checked
  guard.refuse_aside(run)
  if (table := check_folder(cfg.table, "score.table")) is not None:
    _import_table(run, table)
    return
  models = {"seed": find_model(cfg.model, "score.model") or _seed_model(run)}
  pass_specs = passes.list_passes(base_model.scored_signals(run.cfg))
  inputs = {"pool": run.workdir.pool.digest(), "model": _hash_model(run)}
  inputs |= signals.LOOKUP.identify(*base_model.scored_signals(run.cfg))
  for remark in huggingface.list_remarks(models["seed"]):
    run.say(f"score: the model: {remark}", once=True)
  if any(pass_spec.model == "reference" for pass_spec in pass_specs):
    check_reference(run.cfg)
    reference = find_model(cfg.reference, "score.reference")
    assert reference is not None
    models["reference"] = reference
    inputs["reference"] = base_model.hash_model(reference)
  config = {
    "model": base_model.model_config(run),
    "signals": list(base_model.scored_signals(run.cfg)),
  }
  recipe = run.recipe("score", config, inputs)

  def build(folder):
    _build(run, folder, models, pass_specs, recipe)

  run.make(run.workdir.scores, recipe, build, together=True)


def make_options(cfg: Any) -> engine.ScoreOptions:
  """Make the scoring options from the config."""
  return engine.ScoreOptions(
    row_length=cfg.score.row_length,
    batch_rows=cfg.score.batch_rows,
    part_rows=cfg.score.part_rows,
    threads=cfg.score.threads,
    share=cfg.score.share,
    seed=cfg.rng_seed,
    signals=base_model.scored_signals(cfg),
  )


def _import_table(run: Run, source: Path) -> None:
  """Make `scores/` from the table of another run, matching rows by content hash."""
  inputs = {
    "pool": run.workdir.pool.digest(),
    "table": artifacts.hash_folder(source),
  }
  recipe = run.recipe(
    "score", {"signals": list(base_model.scored_signals(run.cfg))}, inputs
  )

  def build(folder):
    pool = base_model.open_pool(run)
    scored = score_table.read_elsewhere(
      source, pool, pool.ok, base_model.scored_signals(run.cfg)
    )
    finite = score_table.write_table(folder, [scored], pool.id, run.cfg.score.part_rows)
    rows = np.sort(scored.row)
    summary = {"scored": len(rows), "carried": len(rows), "passes": {}}
    summary["not_finite"] = int((~finite).sum())
    artifacts.write_json(folder / SUMMARY, summary)
    run.say(f"score: {len(rows):,} rows take their scores from {source}.")
    _report(run, pool, summary, rows[~finite])

  run.make(run.workdir.scores, recipe, build)


def _build(run, folder: Path, models, pass_specs, recipe: artifacts.Recipe) -> None:
  if (folder / SUMMARY).exists():  # interrupted while removing the parts
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
      f"score: {len(carried.row):,} rows keep their scores from the previous table;"
      f" {len(rows):,} are new."
    )
  counts = run_passes(run, folder / WORK, models, pass_specs, rows, options, pool)
  if not peers.is_first_process():
    return
  scored = [] if carried is None else [carried]
  if len(rows):
    folders = {
      pass_spec.name: folder / WORK / pass_spec.name for pass_spec in pass_specs
    }
    numbers = {name: pass_counts["parts"] for name, pass_counts in counts.items()}
    tuned = np.array([], int) if cfg.model is not None else _seed_rows(run)
    scored.append(
      score_table.read_passes(folders, numbers, pool, tuned, options.signals)
    )
  finite = score_table.write_table(folder, scored, pool.id, options.part_rows)
  scored_rows = np.sort(np.concatenate([part.row for part in scored]))
  not_finite = scored_rows[~finite]
  summary = {
    "scored": len(scored_rows),
    "carried": 0 if carried is None else len(carried.row),
    "not_finite": len(not_finite),
    "passes": counts,
  }
  artifacts.write_json(folder / SUMMARY, summary)  # last: marks the table complete
  _report(run, pool, summary, not_finite)
  clear(folder / WORK)


def clear(work: Path) -> None:
  """Remove the parts of the passes, once the table is complete."""
  shutil.rmtree(work, ignore_errors=True)


def run_passes(
  run: Run,
  work: Path,
  models: dict[str, Path],
  pass_specs: list[passes.Pass],
  rows: np.ndarray,
  options: engine.ScoreOptions,
  pool: Any,
  title: str = "score",
) -> dict[str, Any]:
  """Run passes over some rows, and write their parts into `work`.

  Parts that are complete already are not computed again.

  Args:
    run: The invocation.
    work: The folder for the parts; each pass has a folder of its own in it.
    models: Directories of the models, by the names in `Pass.model`.
    pass_specs: The passes to run.
    rows: Pool row numbers, ascending.
    options: How the rows are scored.
    pool: The checked pool.
    title: Title of the progress.

  Returns:
    The counts that `engine.run_pass` returns, by name of the pass.
  """
  counts: dict[str, Any] = {}
  if not len(rows):
    return counts
  reader = base_model.open_reader(run, pool, keeps_tokens=len(pass_specs) > 1)
  for name, path in models.items():
    config, params = base_model.read_model(run, path)
    for pass_spec in pass_specs:
      if pass_spec.model != name:
        continue
      (work / pass_spec.name).mkdir(parents=True, exist_ok=True)
      pass_title = title if pass_spec is passes.MAIN else f"{title} {pass_spec.name}"
      with run.progress(pass_title, "row", leave=False) as progress:
        counts[pass_spec.name] = engine.run_pass(
          config,
          params,
          reader,
          rows,
          options,
          run.mesh,
          work / pass_spec.name,
          pass_spec,
          progress,
          run.stopped,
          lambda text: run.say(f"score: {text}"),
        )
    del params
  return counts


def _find_carried(
  run: Run, pool, recipe: artifacts.Recipe
) -> score_table.Scored | None:
  """Return the scores to keep from the previous table; None if there are none.

  They can be kept if nothing but the pool has changed.
  """
  provenance = run.workdir.scores.provenance()
  if provenance is None or recipe.differences(provenance) != ["pool changed"]:
    return None
  if run.workdir.scores.why_stale(recipe) != ["pool changed"]:
    return None
  carried = score_table.read_carried(run.workdir.scores.path, pool, pool.ok)
  return carried if len(carried.row) else None


def _report(run: Run, pool, summary: dict[str, Any], not_finite: np.ndarray) -> None:
  unusable = int((~pool.ok).sum())
  text = (
    f"score: {len(pool.ok):,} rows = {summary['scored']:,} scored + {unusable:,} set"
    " aside"
  )
  if main := summary["passes"].get("main"):
    filled = main["tokens"] / main["executed_tokens"]
    text += f"; packed rows are {filled:.0%} full"
  run.say(text)
  if len(not_finite):
    listed = ", ".join(f"row {row} (id {pool.id[row]})" for row in not_finite[:NAMED])
    omitted = (
      f" and {len(not_finite) - NAMED:,} more" if len(not_finite) > NAMED else ""
    )
    run.say(
      f"score: the loss of {len(not_finite):,} rows is not finite, so they are not"
      f" selected: {listed}{omitted}."
    )


def _seed_model(run: Run) -> Path:
  return run.workdir.seed.path / "hf"


def _hash_model(run: Run) -> str:
  if run.cfg.score.model is None:
    return run.workdir.seed.digest()
  return base_model.hash_model(base_model.find_model(run.cfg.score.model))


def _seed_rows(run: Run) -> np.ndarray:
  import pyarrow.parquet as pq

  return pq.read_table(run.workdir.seed.path / "rows.parquet")["row"].to_numpy()
