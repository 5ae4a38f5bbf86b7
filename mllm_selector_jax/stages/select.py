"""select: which rows are kept, and for every row why or why not."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax import artifacts
from mllm_selector_jax.data import table
from mllm_selector_jax.scoring.table import ScoreTable, read_scores
from mllm_selector_jax.selection import groups as grouping
from mllm_selector_jax.selection import strategies
from mllm_selector_jax.selection.candidates import Scores
from mllm_selector_jax.selection.necessity import rank_normalise
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.stages import base
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.types import InputError

CONTROL = "random"
NOT_FINITE = "not a number"


def arms(run: Run) -> tuple[str, ...]:
  """The arms of a run: the configured strategy, and the random control."""
  return ("main", CONTROL) if run.cfg.select.control else ("main",)


def select(run: Run) -> None:
  """Makes `arms/<name>/selection/` for every arm of the config."""
  for arm in arms(run):
    strategy = run.cfg.select.strategy if arm == "main" else CONTROL
    select_arm(run, arm, strategy, run.cfg.select.budget)


def select_arm(run: Run, arm: str, strategy: str, budget: str) -> None:
  """Makes one arm's selection with the config's other options."""
  config = {**run.cfg.select.to_dict(), "strategy": strategy, "budget": budget}
  del config["control"]
  options = make_options(config)
  recipe = run.recipe(
    "select",
    config,
    {"scores": run.workdir.scores.digest(), "pool": run.workdir.pool.digest()},
  )

  def build(folder):
    pool, scores = base.open_pool(run), read_scores(run.workdir.scores.path)
    finite = np.isfinite(scores.signal(config["signal"]))
    candidates = _make_scores(pool, scores, finite, config)
    groups = _make_groups(run, pool, scores, finite, candidates, options)
    chosen = strategies.select(candidates, groups, budget, run.cfg.rng_seed, options)
    for warning in chosen.warnings:
      run.say(f"select: {warning}")
    rows = scores.row[finite]
    _write(folder, pool, rows, chosen, groups, config, run)
    run.say(
      f"select: {arm} keeps {int(chosen.kept.sum()):,} of {len(rows):,} eligible"
      f" rows ({strategy}, budget {budget})"
    )

  run.make(run.workdir.selection(arm), recipe, build)


def make_options(config: dict[str, Any]) -> SelectOptions:
  """The options of a selection from the config's section."""
  names = {field.name for field in dataclasses.fields(SelectOptions)}
  given = {name: value for name, value in config.items() if name in names}
  given["competence"] = given["competence"] or None
  return SelectOptions(**given)


def _make_scores(
  pool: table.PoolTable, scores: ScoreTable, finite: np.ndarray, config: dict
) -> Scores:
  rows = scores.row[finite]
  ids = [pool.id[row] for row in rows]
  lists = {}
  for name in ("force_in", "leave_out"):
    wanted = set(map(str, config[name]))
    unknown = sorted(wanted - set(ids))
    if unknown:
      raise InputError(
        f"select.{name} names {unknown[0]!r}, which is no scored row's id"
        f" ({len(unknown)} such); take ids from pool.parquet."
      )
    lists[name] = np.array([i in wanted for i in ids]) if wanted else None
  return Scores(
    necessity=scores.signal(config["signal"])[finite],
    key=np.array([int(pool.hash[row][:16], 16) for row in rows], np.uint64),
    accuracy=scores.signal("accuracy")[finite] if config["competence"] else None,
    seen=scores.signal("seed")[finite],
    tokens=pool.tokens[rows],
    forced_in=lists["force_in"],
    left_out=lists["leave_out"],
  )


def _make_groups(run, pool, scores, finite, candidates, options) -> grouping.Groups:
  columns = {"source": pool.source[scores.row[finite]]}
  embeddings = None
  if "kmeans" in options.groups:
    embeddings = scores.embeddings()[finite]
    embeddings = (
      embeddings if embeddings.shape[1] else None
    )  # of a table made elsewhere
  return grouping.make_groups(
    options.groups,
    columns,
    rank_normalise(candidates.necessity, candidates.flag("seen")),
    embeddings,
    candidates.key,
    options.clusters,
    options.strata,
    run.cfg.rng_seed,
  )


def _write(
  folder: Path,
  pool: table.PoolTable,
  rows: np.ndarray,
  chosen: Selection,
  groups: grouping.Groups,
  config: dict[str, Any],
  run: Run,
) -> None:
  import pyarrow as pa

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
      "kept": spread(chosen.kept, pa.bool_(), False),
      "rank": spread(rank, pa.int64()),
      "group": spread(chosen.group, pa.int32()),
      "group_name": spread(names[chosen.group], pa.string()),
      "necessity": spread(chosen.necessity, pa.float64()),
      "gain": spread(chosen.gain, pa.float64()),
      "threshold": spread(threshold, pa.float64()),
      "reason": pa.array(reason.tolist(), pa.string()),
    }
  )
  artifacts.write_table(folder / "selection.parquet", written)
  kept = rows[chosen.kept]
  _write_records(folder / "selected.json", pool, kept)
  artifacts.write_json(
    folder / "summary.json", _summarise(chosen, reason, rows, config)
  )


def _write_records(path: Path, pool: table.PoolTable, kept: np.ndarray) -> None:
  """The kept records in the pool's order: byte for byte, where they are JSON."""
  parts = [pool.text(row) for row in kept]
  artifacts.write_bytes(path, b"[\n" + b",\n".join(parts) + b"\n]\n")


def _summarise(chosen: Selection, reason, rows, config) -> dict[str, Any]:
  found = chosen.table

  def number(value):
    value = float(value)
    return value if math.isfinite(value) else None

  groups = [
    {
      "group": place,
      "name": found.name[place],
      "size": int(found.size[place]),
      "remaining": int(found.remaining[place]),
      "suspects": int(found.suspects[place]),
      "target_share": number(found.target[place]),
      "reached_share": number(found.reached[place]),
      "mean_necessity": number(found.mean[place]),
      "quota": number(found.quota[place]),
      "floor": int(found.floor[place]),
      "kept": int(found.kept[place]),
    }
    for place in range(len(found.name))
  ]
  names, counts = np.unique(reason.astype(str), return_counts=True)
  certificate = chosen.certificate
  return {
    "strategy": config["strategy"],
    "budget": str(config["budget"]),
    "signal": config["signal"],
    "options": {key: _plain(value) for key, value in config.items()},
    "eligible": len(rows),
    "kept": int(chosen.kept.sum()),
    "threshold": number(chosen.threshold),
    "warnings": list(chosen.warnings),
    "groups": groups,
    "reasons": dict(zip(names.tolist(), counts.tolist(), strict=True)),
    "certificate": certificate
    and {key: number(value) for key, value in certificate._asdict().items()},
  }


def _plain(value: Any) -> Any:
  return list(value) if isinstance(value, tuple) else value
