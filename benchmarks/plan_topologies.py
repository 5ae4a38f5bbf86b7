"""Does LLaVA-1.5 7B fit? The real steps, compiled for TPU slices that are not there.

    JAX_PLATFORMS=cpu python -m benchmarks.plan_topologies [--cases=full,lora,score] \
      [--topology=v5p-16] [--set=tune.accumulate=2,model.remat=dots] [--rows=665298]

Needs the package libtpu (`pip install '.[tpu]'`), no TPU. A case is a shipped config
and a slice; the pool is drawn like LLaVA's mix of 665K (pool_like_665k.py), a fifth of
which is trained on. `--topology` and `--set` try other ones.
"""

import argparse
import ast
import importlib
from typing import Any

import numpy as np

from benchmarks import scoring_models
from benchmarks.pool_columns import describe_drawn
from benchmarks.pool_like_665k import ROWS, draw_pool
from mllm_selector_jax.pipeline.score_pool import make_options
from mllm_selector_jax.planning import estimate, hours, run_steps, topology
from mllm_selector_jax.scoring import passes
from mllm_selector_jax.scoring.engine import plan_pass

IMAGE_TOKENS = 576  # of LLaVA-1.5's image
MFU = 0.4
CASES = {
  "full": ("llava15_7b", "v5p-8"),
  "lora": ("llava15_7b_lora", "v5e-8"),
  "score": ("llava15_7b", "v5e-4"),
}


def make_pool(rows: int) -> Any:
  """The columns of a checked pool that planning asks for."""
  return describe_drawn(draw_pool(rows), IMAGE_TOKENS)


def read_settings(cfg: Any, text: str) -> Any:
  """Changes values by `key=value,...` with dotted keys."""
  for part in filter(None, text.split(",")):
    key, _, value = part.partition("=")
    *parents, name = key.split(".")
    section = cfg
    for parent in parents:
      section = section[parent]
    section[name] = type(section[name])(
      ast.literal_eval(value) if not isinstance(section[name], str) else value
    )
  return cfg


def run_case(name: str, pool: Any, arguments: argparse.Namespace) -> None:
  shipped, slice_name = CASES[name]
  cfg = importlib.import_module(f"mllm_selector_jax.configs.{shipped}").get_config()
  cfg = read_settings(cfg, arguments.set)
  found = topology.describe(arguments.topology or slice_name)
  hf_config = scoring_models.make_hf_config("7b", 336, 14)
  config = scoring_models.make_config(hf_config, "bfloat16", cfg.model.remat)
  print(f"--- {name}: --config={shipped} {arguments.set}", flush=True)
  rows = np.arange(len(pool.ok))
  score = make_options(cfg) if name == "score" else None
  sections = {} if score else {"tune": cfg.tune}
  count = len(rows) // 5
  steps = run_steps.RunSteps(config, sections, {"tune": count}, score, pool)
  for text in run_steps.describe_steps(steps, found, cfg.mesh.to_dict()):
    print(text, flush=True)
  if score:
    packed = plan_pass(passes.MAIN, pool, rows, score)
    flops = estimate.score_flops(config, pool, rows, packed)
    what = f"scoring {len(rows):,} rows"
  else:
    flops = estimate.train_flops(config, cfg.tune, pool, rows) * count
    what = f"an epoch of {count:,} rows"
  rate = hours.Rate(found.peak * len(found.devices), cfg.plan.mfu or MFU)
  print(
    f"{what}: {flops:.3g} FLOPs, about {hours.duration(rate.seconds(flops, flops)[0])}"
    f" at an MFU of {rate.mfu:.0%}",
    flush=True,
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--cases", default=",".join(CASES))
  parser.add_argument("--topology", help="another slice for all of them")
  parser.add_argument("--set", default="", help="changes of the config")
  parser.add_argument("--rows", type=int, default=ROWS, help="of the pool")
  arguments = parser.parse_args()
  pool = make_pool(arguments.rows)
  for name in arguments.cases.split(","):
    run_case(name, pool, arguments)


if __name__ == "__main__":
  main()
