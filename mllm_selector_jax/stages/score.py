"""score: every usable row's signals and embedding, by as few passes as they need."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax import artifacts, peers
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.scoring import engine, passes, table
from mllm_selector_jax.stages import base, guard
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.types import InputError

NAMED = 20  # rows with a loss that is not finite, in the summary
WORK, SUMMARY = "passes", "summary.json"


def score(run: Run) -> None:
  """Makes `scores/` with the seed model, or with `score.model` where given."""
  cfg = run.cfg.score
  run.workdir.pool.digest()  # says what to run where there is none
  guard.refuse_aside(run)
  if cfg.table is not None:
    _bring_in(run, _given(cfg.table, "score.table"))
    return
  models = {"seed": _given(cfg.model, "score.model") or _seed_model(run)}
  wanted = passes.list_passes(base.scored_signals(run.cfg))
  inputs = {"pool": run.workdir.pool.digest(), "model": _identity(run)}
  for remark in huggingface.list_remarks(models["seed"]):
    run.say(f"score: the model: {remark}", once=True)
  if any(own.model == "reference" for own in wanted):
    check_reference(run.cfg)
    models["reference"] = _given(cfg.reference, "score.reference")
    inputs["reference"] = base.hash_model(models["reference"])
  config = {
    "model": base.model_config(run),
    "signals": list(base.scored_signals(run.cfg)),
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
    signals=base.scored_signals(cfg),
  )


def check_reference(cfg: Any) -> None:
  """Refuses a signal that compares with a reference model where there is none."""
  wanted = passes.list_passes(base.scored_signals(cfg))
  scored = cfg.score.table is None and any(own.model == "reference" for own in wanted)
  if scored and cfg.score.reference is None:
    raise InputError(
      "score.signals has excess, the loss over a reference model's:"
      " --config.score.reference=DIR gives that model."
    )


def check_folders(cfg: Any) -> None:
  """Refuses models that cannot be read, and scores that are not there."""
  _given(cfg.score.table, "score.table")
  for name in ("model", "reference"):
    folder = _given(cfg.score[name], f"score.{name}")
    if folder is not None:
      huggingface.check_weights(folder, huggingface.read_config(folder))


def needs_seed(run: Run) -> bool:
  """Whether the scores are the seed model's."""
  return run.cfg.score.model is None and run.cfg.score.table is None


def _bring_in(run: Run, source: Path) -> None:
  """Makes `scores/` from a table made elsewhere, by the rows' hashes."""
  inputs = {
    "pool": run.workdir.pool.digest(),
    "table": artifacts.hash_folder(source),
  }
  recipe = run.recipe("score", {"signals": list(base.scored_signals(run.cfg))}, inputs)

  def build(folder):
    pool = base.open_pool(run)
    found = table.read_elsewhere(source, pool, pool.ok, base.scored_signals(run.cfg))
    finite = table.write_table(folder, [found], pool.id, run.cfg.score.part_rows)
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
  pool = base.open_pool(run)
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
    scored.append(table.read_passes(folders, numbers, pool, tuned, options.signals))
  finite = table.write_table(folder, scored, pool.id, options.part_rows)
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
  reader = base.open_reader(run, pool)
  for name, path in models.items():
    config, params = base.read_model(run, path)
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


def _find_carried(run: Run, pool, recipe: artifacts.Recipe) -> table.Scored | None:
  """What the table before gives, where it differs in nothing but the pool."""
  made = run.workdir.scores.provenance()
  if made is None or recipe.differences(made) != ["pool changed"]:
    return None
  if run.workdir.scores.why_stale(recipe) != ["pool changed"]:
    return None
  carried = table.read_carried(run.workdir.scores.path, pool, pool.ok)
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


def _given(value: str | None, name: str) -> Path | None:
  if value is not None and not Path(value).is_dir():
    raise InputError(f"{name}={value}: there is no such directory.")
  return None if value is None else Path(value)


def _seed_model(run: Run) -> Path:
  return run.workdir.seed.path / "hf"


def _identity(run: Run) -> str:
  if run.cfg.score.model is None:
    return run.workdir.seed.digest()
  return base.hash_model(Path(run.cfg.score.model))


def _seed_rows(run: Run) -> np.ndarray:
  import pyarrow.parquet as pq

  return pq.read_table(run.workdir.seed.path / "rows.parquet")["row"].to_numpy()
