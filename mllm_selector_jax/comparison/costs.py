"""The costs of the arms of a comparison, in model FLOPs and in seconds.

FLOPs are counted as by training/work.py: those of the model, without padding,
recomputation, and what a strategy computes with embeddings. Seconds are those of whole
stages on this machine, including compilation.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mllm_selector_jax.comparison.comparison_plan import (
  BASELINES,
  POOL,
  RANDOM,
  Arm,
  Plan,
)
from mllm_selector_jax.comparison.seeds import at_seed
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.pipeline import candidates, flops, heldout_models, needs
from mllm_selector_jax.pipeline.scored_models import needs_seed
from mllm_selector_jax.pipeline.tune_arm import kept_rows
from mllm_selector_jax.runs.context import Run

KINDS = ("flops", "seconds")


def find_costs(
  run: Run, plan: Plan, results: dict[str, Any], times: dict[str, float]
) -> dict[str, Any]:
  """Computes the costs of every arm, and their means over seeds.

  Args:
    run: the run.
    plan: the arms and seeds.
    results: the result of `comparison_summary.summarise`.
    times: the seconds of each artifact, as far as they are known.

  Returns:
    The content of costs.json: "seeds" (for each seed, the costs of the seed model, the
    scoring and the tuning on the full pool), "arms" (the costs of each arm and seed)
    and "table" (means over seeds). Costs have the keys `<what>_flops` and
    `<what>_seconds`. In the table, "selection" is the sum for the seed model, the
    scoring, the held-out loss of select.bound, the search for settings and the strategy
    itself; `random`, `full` and `reference` need only the last. "of_full" is the cost
    of selection and tuning, divided by that of tuning on the full pool.
  """
  config = huggingface.read_config(
    base_model.base_path(run), dtype=base_model.dtype(run)
  )
  lines = {line["arm"]: line for line in results["arms"]}
  seeds, arms = [], []
  for seed in plan.seeds:
    current = at_seed(run, plan, seed)
    pool = base_model.open_pool(current)
    shared = _find_shared(current, config, pool)
    folder, full_arm = f"seeds/{seed}", POOL.name(seed)
    seed_seconds = times.get(f"{folder}/seed")
    shared["seed_seconds"] = seed_seconds if shared["seed_flops"] else 0.0
    shared["score_seconds"] = times.get(f"{folder}/scores")
    rates = flops.make_row_rates(config, current.cfg.tune)
    row_flops = flops.row_flops(config, rates, pool)
    kept = kept_rows(current, full_arm)
    epochs = current.cfg.tune.epochs
    shared["full_flops"] = float(row_flops[kept].mean()) * len(kept) * epochs
    shared["full_seconds"] = times.get(f"arms/{full_arm}/tuned")
    seeds.append({"seed": seed, **shared})
    for arm in plan.arms:
      name = arm.name(seed)
      changes = {"strategy": plan.strategy(arm), **plan.changes(arm)}
      options = needs.make_options(candidates.make_config(current, **changes))
      held_out = needs.find_held_out(options)
      line = lines[name]
      rows = flops.read_rows(current.workdir.tuned(name).path)
      samples = flops.count_samples(line["rows"], line["steps"], current.cfg.tune.batch)
      arms.append(
        {
          "arm": name,
          **arm._asdict(),
          "seed": seed,
          "samples": samples,
          "published": arm.strategy in plan.published,
          **_find_search_costs(current, arm, held_out, times, folder),
          "bound_flops": heldout_models.read_flops(current, held_out),
          "bound_seconds": heldout_models.add_seconds(times, held_out, f"{folder}/"),
          "tune_flops": float(row_flops[rows].mean()) * samples,
          "select_seconds": times.get(f"arms/{name}/selection"),
          "tune_seconds": times.get(f"arms/{name}/tuned"),
          "evaluate_seconds": times.get(f"arms/{name}/evaluation"),
        }
      )
  return {"seeds": seeds, "arms": arms, "table": tabulate(seeds, arms)}


def _find_shared(run: Run, config: MllmConfig, pool: Any) -> dict[str, float | None]:
  """Counts the FLOPs of the seed model and the scoring, which a seed's arms share."""
  shared: dict[str, float | None] = {"seed_flops": 0.0, "score_flops": 0.0}
  if needs_seed(run):
    rows = flops.read_rows(run.workdir.seed.path)
    rates = flops.make_row_rates(config, run.cfg.seed)
    row_flops = flops.row_flops(config, rates, pool)
    shared["seed_flops"] = float(row_flops[rows].sum()) * run.cfg.seed.epochs
  summary = json.loads((run.workdir.scores.path / "summary.json").read_text())
  shared["score_flops"] = flops.pass_flops(config, pool, pool.ok, summary["passes"])
  return shared


def _find_search_costs(run, arm, held_out, times, folder) -> dict[str, float]:
  """Returns the costs of the search for an arm's settings; 0 without a search.

  Args:
    run: the run of a seed.
    arm: the arm.
    held_out: the held-out loss of the arm's bound, whose costs count to the bound.
    times: as for `find_costs`.
    folder: the folder of the seed in the workdir.
  """
  cfg = run.cfg.select
  if not cfg.search.candidates or arm.strategy != cfg.strategy:
    return {"search_flops": 0.0, "search_seconds": 0.0}
  search = json.loads((run.workdir.search.path / "trials.json").read_text())
  makers = {
    needs.find_held_out(needs.make_options(candidates.make_config(run, **settings)))
    for settings in search["candidates"]
  }
  others = makers - {held_out}
  total = sum(line["flops"] for line in search["trials"])
  total += sum(heldout_models.read_flops(run, maker) for maker in others)
  prefix = f"{folder}/search"
  seconds = [value for name, value in times.items() if name.startswith(prefix)]
  seconds += [
    heldout_models.add_seconds(times, maker, f"{folder}/") for maker in others
  ]
  return {"search_flops": total, "search_seconds": _add(seconds)}


def tabulate(seeds: Sequence[dict], arms: Sequence[dict]) -> list[dict[str, Any]]:
  """Computes mean costs over seeds of each strategy and budget; see `find_costs`."""
  seed_costs = {line["seed"]: line for line in seeds}
  by_arm: dict[tuple[str, str], list[dict[str, Any]]] = {}
  for line in arms:
    shared = seed_costs[line["seed"]]
    arm = Arm(line["strategy"], line["budget"])
    is_control = arm.strategy == RANDOM or arm in BASELINES
    # What a published selection cost its authors is not known.
    is_control |= line.get("published", False)
    entry: dict[str, Any] = {}
    for kind in KINDS:
      parts = [line["select_seconds"]] if kind == "seconds" else [0.0]
      if not is_control:
        parts += [shared[f"seed_{kind}"], shared[f"score_{kind}"]]
        parts += [line[f"bound_{kind}"], line[f"search_{kind}"]]
      entry[f"selection_{kind}"] = _add(parts)
      entry[f"tune_{kind}"] = line[f"tune_{kind}"]
      total, full = _add([_add(parts), line[f"tune_{kind}"]]), shared[f"full_{kind}"]
      entry[f"of_full_{kind}"] = total / full if full and total is not None else None
    by_arm.setdefault((line["strategy"], line["budget"]), []).append(entry)
  return [
    {"strategy": strategy, "budget": budget}
    | {name: _mean([entry[name] for entry in entries]) for name in entries[0]}
    for (strategy, budget), entries in by_arm.items()
  ]


def _add(parts: Sequence[float | None]) -> float | None:
  known = [part for part in parts if part is not None]
  return float(sum(known)) if len(known) == len(parts) else None


def _mean(values: Sequence[float | None]) -> float | None:
  known = [value for value in values if value is not None]
  return float(np.mean(known)) if len(known) == len(values) else None
