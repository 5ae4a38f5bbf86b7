"""Makes an arm's selection: which rows are kept, and the reason for every row."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax.data.pool import pool_table
from mllm_selector_jax.pipeline import (
  candidates,
  doubtful_rows,
  drift,
  heldout_models,
  kept_arms,
  needs,
  suspects,
)
from mllm_selector_jax.pipeline.arms import POINTERS, point
from mllm_selector_jax.pipeline.exports import warn_stale
from mllm_selector_jax.pipeline.listed_rows import name_rows
from mllm_selector_jax.pipeline.tuning_recipe import recipe_config
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run, plain
from mllm_selector_jax.scoring.score_table import read_scores
from mllm_selector_jax.selection.selection import Selection

NOT_FINITE = "not a number"


def select_arm(
  run: Run,
  arm: str,
  strategy: str,
  budget: str,
  verdict: dict[str, Any] | None = None,
  **changes: Any,
) -> str:
  """Make the selection of one arm.

  Args:
    run: A run with a checked pool and scores.
    arm: Name of the arm; "main" or "random" to let that name stand for the arm that is
      named after its settings; "" for such an arm without another name.
    strategy: Name of the strategy.
    budget: How many rows to keep, as in the setting `select.budget`.
    verdict: What a search found about selecting from this pool, for the summary.
    **changes: Other settings of the section `select` to replace.

  Returns:
    The name of the arm's folder.
  """
  config = candidates.make_config(run, strategy=strategy, budget=budget, **changes)
  config, notes = name_rows(run, config)
  inputs = {"scores": run.workdir.scores.digest(), "pool": run.workdir.pool.digest()}
  maker = needs.find_held_out(needs.make_options(config))
  inputs |= needs.identify_plugins(config)
  if maker:
    inputs |= heldout_models.make_doubts(run, maker)
  if verdict:
    inputs["verdict"] = artifacts.hash_json(verdict)
  recipe = run.recipe("select", config, inputs)
  name = arm
  if arm in ("", *POINTERS):
    name = _place(run, arm, recipe, changes)

  artifact = run.workdir.selection(name)
  aside = artifact.aside(recipe.to_text())

  def build(folder):
    eligible = candidates.read_eligible(run, config, run.cfg.rng_seed, aside=aside)
    chosen = eligible.select(budget, run.cfg.rng_seed)
    if unscored := int(eligible.pool.ok.sum()) - len(eligible.rows):
      run.say(
        f"select: {unscored:,} rows are set aside: a score of theirs is not a number"
      )
    shifts = drift.list_shifts(eligible, chosen)
    warnings = [
      *suspects.list_warnings(eligible, chosen),
      *drift.list_warnings(shifts, config.get("normalise", candidates.OVER_ALL)),
    ]
    chosen = chosen._replace(warnings=(*chosen.warnings, *warnings))
    for warning in chosen.warnings:
      run.say(f"select: {warning}")
    spent = heldout_models.read_flops(run, maker)
    chosen = chosen._replace(warnings=(*notes, *chosen.warnings))
    table = read_scores(run.workdir.scores.path)
    standing = doubtful_rows.judge_rows(eligible, chosen, table)
    said: dict[str, Any] = {"drift": [shift._asdict() for shift in shifts]}
    if verdict:
      said["verdict"] = verdict
    _write(folder, eligible, chosen, standing, config, spent, said)
    proof = chosen.certificate
    run.say(
      f"select: {name} keeps {int(chosen.kept.sum()):,} of {len(eligible.rows):,}"
      f" eligible rows ({strategy}, budget {budget}"
      + (f"; proved optimal, gap {proof.gap:.1e})" if proof else ")")
    )
    if chosen.spared or maker:
      _report_bound(run, chosen, config["bound"], spent)
    if doubtful := int((standing.doubt != "").sum()):
      run.say(
        f"select: kept rows that are doubtful: {doubtful:,}; the column doubt of"
        " selection.parquet and the report say why"
      )

  if run.make(artifact, recipe, build):
    warn_stale(run, name)
  if arm in POINTERS:
    point(run, arm, name)
  return name


def _place(run: Run, arm: str, recipe: artifacts.Recipe, changes: dict) -> str:
  """Return the name of the folder of an arm that is named after its settings."""

  def fits(name):
    made = run.workdir.tuned(name).provenance()
    wanted = json.loads(json.dumps(recipe_config(run.cfg.tune)))
    return made is not None and wanted.items() <= made["config"].items()

  if arm:
    kept_arms.adopt(run, arm)
  changed = {k: v for k, v in changes.items() if plain(run.cfg.select.get(k)) != v}
  return kept_arms.place_selection(run, recipe, changed, fits)


def _report_bound(run: Run, chosen: Selection, bound: str, spent: float) -> None:
  """Say how many rows were checked for wrong answers, and why others were not."""
  rows = len(chosen.kept)
  checked = rows - sum(counts["rows"] for counts in chosen.spared.values())
  spared = "; ".join(
    f"{counts['rows']:,} rows in {counts['groups']:,} {name}"
    if name.startswith("groups")
    else f"{counts['rows']:,} {name}"
    for name, counts in chosen.spared.items()
  )
  cost = f" for {spent:.2e} FLOPs beside the scoring" if spent else ""
  run.say(
    f"select: the bound {bound} checked {checked:,} of {rows:,} rows for wrong answers"
    f"{cost} and leaves out {int(chosen.table.suspects.sum()):,}"
    + (f"; not checked: {spared}" if spared else "")
  )


def _write(
  folder: Path,
  eligible: candidates.Eligible,
  chosen: Selection,
  standing: doubtful_rows.Standing,
  config: dict[str, Any],
  spent: float,
  said: dict[str, Any],
) -> None:
  import pyarrow as pa

  pool, rows = eligible.pool, eligible.rows
  count = len(pool.ok)
  names = np.array(chosen.table.name, dtype=object)

  def spread(values, kind, missing=None):
    full = np.full(count, missing, object)
    full[rows] = [
      None if isinstance(v, float) and math.isnan(v) else v for v in values.tolist()
    ]
    return pa.array(full.tolist(), kind)

  reason = np.full(count, NOT_FINITE, object)
  reason[~pool.ok] = [
    f"set aside: {pool.reason[row]}" for row in np.flatnonzero(~pool.ok)
  ]
  reason[rows] = chosen.reason
  rank = np.where(chosen.kept, chosen.rank, -1).astype(object)
  rank[rank == -1] = None
  threshold = np.full(len(rows), chosen.threshold)
  threshold[~np.isfinite(threshold)] = np.nan
  written = pa.table(
    {
      "row": pa.array(np.arange(count), pa.int64()),
      "id": pa.array(pool.id, pa.string()),
      "hash": pa.array(pool.hash, pa.string()),
      "kept": spread(chosen.kept, pa.bool_(), False),
      "rank": spread(rank, pa.int64()),
      "group": spread(chosen.group, pa.int32()),
      "group_name": spread(names[chosen.group], pa.string()),
      "target_share": spread(chosen.table.target[chosen.group], pa.float64()),
      "reached_share": spread(chosen.table.reached[chosen.group], pa.float64()),
      "necessity": spread(chosen.normalised_necessity, pa.float64()),
      "necessity_rank": spread(_rank(chosen.normalised_necessity), pa.int64()),
      "gain": spread(chosen.gain, pa.float64()),
      "threshold": spread(threshold, pa.float64()),
      "reason": pa.array(reason.tolist(), pa.string()),
      "judged": spread(standing.judged, pa.bool_()),
      "confirmed": spread(standing.confirmed, pa.bool_()),
      "doubt": spread(
        np.array([text or None for text in standing.doubt], object), pa.string()
      ),
    }
  )
  artifacts.write_table(folder / "selection.parquet", written)
  kept = rows[chosen.kept]
  _write_records(folder / "selected.json", pool, kept)
  summary = _summarise(chosen, standing, reason, rows, config, spent) | said
  artifacts.write_json(folder / "summary.json", summary)


def _rank(necessity: np.ndarray) -> np.ndarray:
  """Rank necessities from 0 for the highest; equal values have the same rank."""
  ascending = np.sort(necessity)
  return len(necessity) - np.searchsorted(ascending, necessity, side="right")


def _write_records(path: Path, pool: pool_table.PoolTable, kept: np.ndarray) -> None:
  """Write the kept records in the pool's order, byte for byte if the pool is JSON."""
  parts = [pool.text(row) for row in kept]
  artifacts.write_bytes(path, b"[\n" + b",\n".join(parts) + b"\n]\n")


def _summarise(
  chosen: Selection, standing, reason, rows, config, spent
) -> dict[str, Any]:
  table = chosen.table

  def number(value):
    value = float(value)
    return value if math.isfinite(value) else None

  groups = [
    {
      "group": group,
      "name": table.name[group],
      "size": int(table.size[group]),
      "remaining": int(table.remaining[group]),
      "suspects": int(table.suspects[group]),
      "target_share": number(table.target[group]),
      "reached_share": number(table.reached[group]),
      "mean_necessity": number(table.mean[group]),
      "quota": number(table.quota[group]),
      "floor": int(table.floor[group]),
      "kept": int(table.kept[group]),
    }
    for group in range(len(table.name))
  ]
  names, counts = np.unique(reason.astype(str), return_counts=True)
  certificate = chosen.certificate
  meanings = needs.list_meanings(config)
  return {
    "strategy": config["strategy"],
    "budget": str(config["budget"]),
    "signal": config["signal"],
    "options": config,
    "eligible": len(rows),
    "kept": int(chosen.kept.sum()),
    "threshold": number(chosen.threshold),
    "warnings": list(chosen.warnings),
    "bound": {
      "suspects": int(chosen.table.suspects.sum()),
      "flops": spent,
      "spared": dict(chosen.spared),
    },
    "doubtful": int((standing.doubt != "").sum()),
    "groups": groups,
    **({"limits": dict(chosen.limits)} if chosen.limits else {}),
    "reasons": dict(zip(names.tolist(), counts.tolist(), strict=True)),
    **({"meanings": meanings} if meanings else {}),
    "certificate": certificate
    and {key: number(value) for key, value in certificate._asdict().items()},
  }
