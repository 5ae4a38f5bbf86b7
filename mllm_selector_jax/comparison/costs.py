"""What a selection costs beside the tuning on it: model FLOPs and seconds.

FLOPs are the model's own, as training/work.py counts them: without padding,
recomputation and what a strategy computes on embeddings. Seconds are those of this
machine, of whole stages, compilation included.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mllm_selector_jax.comparison.comparison_plan import FULL, POOL, RANDOM, Plan
from mllm_selector_jax.comparison.seeds import at_seed
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.pipeline import candidates, flops, heldout_models, needs
from mllm_selector_jax.pipeline.scored_models import needs_seed
from mllm_selector_jax.pipeline.tune_arm import kept_rows
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection.bounds import find_bound

KINDS = ("flops", "seconds")


def find_costs(
  run: Run, plan: Plan, results: dict[str, Any], times: dict[str, float]
) -> dict[str, Any]:
  """The costs of every arm, and their means over seeds.

  Args:
    run: the invocation.
    plan: the arms and seeds.
    results: of `comparison_summary.summarise`.
    times: seconds by artifact; what is not there is not known.

  Returns:
    What costs.json holds: "seeds" (of the seed model, the scoring and the tuning on
    the full pool), "arms" (of one arm and seed) and "table" (means over seeds), each
    with `<what>_flops` and `<what>_seconds`. In the table "selection" is the seed
    model, the scoring, the held-out loss of select.bound, the search for settings and
    the strategy itself, of which `random` and `full` need the last alone, and "of_full"
    is selection and tuning over the tuning on the full pool.
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
    place, whole = f"seeds/{seed}", POOL.name(seed)
    shared["seed_seconds"] = times.get(f"{place}/seed") if shared["seed_flops"] else 0.0
    shared["score_seconds"] = times.get(f"{place}/scores")
    row = flops.row_flops(flops.make_row_rates(config, current.cfg.tune), pool)
    kept = kept_rows(current, whole)
    epochs = current.cfg.tune.epochs
    shared["full_flops"] = float(row[kept].mean()) * len(kept) * epochs
    shared["full_seconds"] = times.get(f"arms/{whole}/tuned")
    seeds.append({"seed": seed, **shared})
    for arm in plan.arms:
      name = arm.name(seed)
      changes = {"strategy": plan.strategy(arm), **plan.changes(arm)}
      options = needs.make_options(candidates.make_config(current, **changes))
      doubted = needs.find_held_out(options)
      line = lines[name]
      rows = flops.read_rows(current.workdir.tuned(name).path)
      seen = flops.count_samples(line["rows"], line["steps"], current.cfg.tune.batch)
      arms.append(
        {
          "arm": name,
          **arm._asdict(),
          "seed": seed,
          "samples": seen,
          **_find_searched(current, arm, doubted, times, place),
          "bound_flops": heldout_models.read_flops(current, doubted),
          "bound_seconds": heldout_models.add_seconds(times, doubted, f"{place}/"),
          "tune_flops": float(row[rows].mean()) * seen,
          "select_seconds": times.get(f"arms/{name}/selection"),
          "tune_seconds": times.get(f"arms/{name}/tuned"),
          "evaluate_seconds": times.get(f"arms/{name}/evaluation"),
        }
      )
  return {"seeds": seeds, "arms": arms, "table": tabulate(seeds, arms)}


def _find_shared(run: Run, config: MllmConfig, pool: Any) -> dict[str, float]:
  """FLOPs of the seed model and of scoring, which the arms of a seed share."""
  found = {"seed_flops": 0.0, "score_flops": 0.0}
  if needs_seed(run):
    rows = flops.read_rows(run.workdir.seed.path)
    row = flops.row_flops(flops.make_row_rates(config, run.cfg.seed), pool)
    found["seed_flops"] = float(row[rows].sum()) * run.cfg.seed.epochs
  summary = json.loads((run.workdir.scores.path / "summary.json").read_text())
  found["score_flops"] = flops.pass_flops(config, pool, pool.ok, summary["passes"])
  return found


def _find_searched(run, arm, doubted, times, place) -> dict[str, float]:
  """What the search took by which an arm's settings were found; 0 without one."""
  cfg = run.cfg.select
  if not cfg.search.candidates or arm.strategy != cfg.strategy:
    return {"search_flops": 0.0, "search_seconds": 0.0}
  found = json.loads((run.workdir.search.path / "trials.json").read_text())
  tried = {find_bound(each["bound"]).held_out for each in found["candidates"]}
  others = tried - {doubted}
  spent = sum(line["flops"] for line in found["trials"])
  spent += sum(heldout_models.read_flops(run, maker) for maker in others)
  taken = [value for name, value in times.items() if name.startswith(f"{place}/search")]
  taken += [heldout_models.add_seconds(times, maker, f"{place}/") for maker in others]
  return {"search_flops": spent, "search_seconds": _add(taken)}


def tabulate(seeds: Sequence[dict], arms: Sequence[dict]) -> list[dict[str, Any]]:
  """Mean costs over seeds of each strategy and budget; see `find_costs`."""
  shared = {line["seed"]: line for line in seeds}
  found: dict[tuple[str, str], list[dict[str, Any]]] = {}
  for line in arms:
    before = shared[line["seed"]]
    plain = line["strategy"] in (RANDOM, FULL)
    entry: dict[str, Any] = {}
    for kind in KINDS:
      parts = [line["select_seconds"]] if kind == "seconds" else [0.0]
      if not plain:
        parts += [before[f"seed_{kind}"], before[f"score_{kind}"]]
        parts += [line[f"bound_{kind}"], line[f"search_{kind}"]]
      entry[f"selection_{kind}"] = _add(parts)
      entry[f"tune_{kind}"] = line[f"tune_{kind}"]
      whole, most = _add([_add(parts), line[f"tune_{kind}"]]), before[f"full_{kind}"]
      entry[f"of_full_{kind}"] = whole / most if most and whole is not None else None
    found.setdefault((line["strategy"], line["budget"]), []).append(entry)
  return [
    {"strategy": strategy, "budget": budget}
    | {name: _mean([entry[name] for entry in entries]) for name in entries[0]}
    for (strategy, budget), entries in found.items()
  ]


def _add(parts: Sequence[float | None]) -> float | None:
  return None if None in parts else float(sum(parts))


def _mean(values: Sequence[float | None]) -> float | None:
  return None if None in values else float(np.mean(values))
