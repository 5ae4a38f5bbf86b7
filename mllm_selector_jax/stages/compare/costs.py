"""What a selection costs beside the tuning on it: model FLOPs and seconds.

FLOPs are the model's own, as utilisation counts them: two a parameter a token and
attention's products; without padding, recomputation and what a strategy computes
on embeddings. Seconds are those of this machine, of whole stages, compilation and
evaluation's images included.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.stages import base
from mllm_selector_jax.stages.compare.arms import FULL, RANDOM, Plan
from mllm_selector_jax.stages.compare.seeds import at_seed
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.stages.plan import forward_flops, parameter_counts
from mllm_selector_jax.stages.score import needs_seed

KINDS = ("flops", "seconds")


def count_steps(rows: int, section: Any) -> int:
  """Training steps of that many rows by the section's recipe."""
  return section.epochs * -(-rows // section.batch)


def count_samples(rows: int, steps: int, batch: int) -> int:
  """Samples that the first steps of shuffled epochs have; the last may be short."""
  whole, rest = divmod(steps, -(-rows // batch))
  return whole * rows + min(rest * batch, rows)


def forward_parts(
  config: MllmConfig,
  tokens: Int[np.ndarray, " n"],
  has_image: Bool[np.ndarray, " n"],
) -> dict[str, Float[np.ndarray, " n"]]:
  """FLOPs of each row's forward pass: "decoder", "projector" and "vision"."""
  sizes = parameter_counts(config)
  text = {**sizes, "vision": 0, "projector": 0}
  images = 2.0 * config.patches * has_image
  return {
    "decoder": np.asarray(forward_flops(config, text, tokens.astype(np.float64))),
    "projector": sizes["projector"] * images,
    "vision": sizes["vision"] * images,
  }


def train_flops(parts: dict[str, Any], section: Any) -> Any:
  """FLOPs of forward and backward passes by a recipe.

  Going back costs a forward pass for the gradients of what comes in, and one for
  those of the weights where they are trained. Nothing goes back into a frozen
  tower. Adapters' own few products are left out.
  """
  whole = section.trainable == "all"
  decoder = 3 if section.trainable != "projector" and not section.lora.rank else 2
  return (
    decoder * parts["decoder"]
    + (3 if whole else 2) * parts["projector"]
    + (3 if whole else 1) * parts["vision"]
  )


def find_costs(
  run: Run, plan: Plan, results: dict[str, Any], times: dict[str, float]
) -> dict[str, Any]:
  """The costs of every arm, and their means over seeds.

  Args:
    run: the invocation.
    plan: the arms and seeds.
    results: of `summary.summarise`.
    times: seconds by artifact; what is not there is not known.

  Returns:
    What costs.json holds: "seeds" (of the seed model and the scoring), "arms" (of
    one arm and seed) and "table" (means over seeds), each with `<what>_flops` and
    `<what>_seconds`. In the table "selection" is the seed model, the scoring and
    the strategy itself, of which `random` and `full` need the last alone, and
    "of_full" is selection and tuning over the tuning on the full pool.
  """
  config = huggingface.read_config(base.base_path(run), dtype=base.dtype(run))
  lines = {line["arm"]: line for line in results["arms"]}
  seeds, arms = [], []
  for seed in plan.seeds:
    with at_seed(run, plan, seed):
      pool = base.open_pool(run)
      parts = forward_parts(config, pool.tokens, pool.has_image)
      shared = _find_shared(run, parts, pool)
      place = f"seeds/{seed}"
      shared["seed_seconds"] = (
        times.get(f"{place}/seed") if shared["seed_flops"] else 0.0
      )
      shared["score_seconds"] = times.get(f"{place}/scores")
      seeds.append({"seed": seed, **shared})
      row = train_flops(parts, run.cfg.tune)
      for arm in plan.arms:
        name = arm.name(seed)
        line = lines[name]
        rows = _read_rows(run.workdir.tuned(name).path)
        seen = count_samples(line["rows"], line["steps"], run.cfg.tune.batch)
        arms.append(
          {
            "arm": name,
            **arm._asdict(),
            "seed": seed,
            "samples": seen,
            "tune_flops": float(row[rows].mean()) * seen,
            "select_seconds": times.get(f"arms/{name}/selection"),
            "tune_seconds": times.get(f"arms/{name}/tuned"),
            "evaluate_seconds": times.get(f"arms/{name}/evaluation"),
          }
        )
  return {"seeds": seeds, "arms": arms, "table": tabulate(seeds, arms)}


def _find_shared(run: Run, parts: dict[str, Any], pool: Any) -> dict[str, float]:
  """FLOPs of the seed model and of scoring, which the arms of a seed share."""
  found = {"seed_flops": 0.0, "score_flops": 0.0}
  if needs_seed(run):
    rows = _read_rows(run.workdir.seed.path)
    row = train_flops(parts, run.cfg.seed)
    found["seed_flops"] = float(row[rows].sum()) * run.cfg.seed.epochs
  summary = json.loads((run.workdir.scores.path / "summary.json").read_text())
  own = {name: float(part[pool.ok].sum()) for name, part in parts.items()}
  tokens = max(int(pool.tokens[pool.ok].sum()), 1)
  images = max(int(pool.has_image[pool.ok].sum()), 1)
  for passed in summary["passes"].values():
    # Samples of one image share its tokens, and the tower sees it once. A control
    # pass does not count the tokens of its changed rows: it is taken as the main.
    text = passed["tokens"] / tokens if passed["tokens"] else 1.0
    shown = passed["images"] / images
    image = own["vision"] + own["projector"]
    found["score_flops"] += text * own["decoder"] + shown * image
  return found


def _read_rows(folder: Any) -> Int[np.ndarray, " K"]:
  import pyarrow.parquet as pq

  return pq.read_table(folder / "rows.parquet", columns=["row"])["row"].to_numpy()


def tabulate(seeds: Sequence[dict], arms: Sequence[dict]) -> list[dict[str, Any]]:
  """Mean costs over seeds of each strategy and budget; see `find_costs`."""
  shared = {line["seed"]: line for line in seeds}
  found: dict[tuple[str, str], list[dict[str, Any]]] = {}
  full = {line["seed"]: line for line in arms if line["strategy"] == FULL}
  for line in arms:
    before = shared[line["seed"]]
    plain = line["strategy"] in (RANDOM, FULL)
    entry: dict[str, Any] = {}
    for kind in KINDS:
      parts = [line["select_seconds"]] if kind == "seconds" else [0.0]
      if not plain:
        parts += [before[f"seed_{kind}"], before[f"score_{kind}"]]
      entry[f"selection_{kind}"] = _add(parts)
      entry[f"tune_{kind}"] = line[f"tune_{kind}"]
      whole, most = _add([_add(parts), line[f"tune_{kind}"]]), full[line["seed"]]
      most = most[f"tune_{kind}"]
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
