"""The headline comparison on a real language model: its settings, frozen before a run.

    python -m benchmarks.real_base --out=BASE
    python -m benchmarks.real_pools --source=SOURCES --out=POOLS --easy_vqa=EASY
    mllm-selector compare --config=benchmarks/headline_real.py --workdir=runs/rooms-1 \
      --config.model.path=BASE --config.rng_seed=1 --config.compare.seeds=1 \
      --config.pool.data=POOLS/rooms/pool.json \
      --config.pool.images=POOLS/rooms/images \
      --config.evaluate.tasks=POOLS/rooms/eval.jsonl

The decoder is SmolLM2-135M (`real_base`), the pools are those of `real_pools`, and
every arm is tuned for one epoch by the same recipe (`real_config`). Each seed has a
seed model, scores and arms of its own. What `compare/results.json` says of each arm is
kept under docs/headline/: real-<pool>-<seed>.json. `benchmarks.merge_comparisons` reads
such files together.
"""

from benchmarks import real_config


def get_config():
  cfg = real_config.get_config()
  cfg.compare.strategies = "kl"
  cfg.compare.budgets = "5%,20%,50%"
  cfg.evaluate.limit = 300
  cfg.report.title = "Headline: SmolLM2-135M, one epoch"
  return cfg
