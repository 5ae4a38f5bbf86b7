"""The headline comparison on a real language model: its settings, frozen before a run.

    python -m benchmarks.real_base --out=BASE
    python -m benchmarks.real_pools --source=SOURCES --out=POOLS --easy_vqa=EASY
    mllm-selector compare --config=benchmarks/headline_real.py --workdir=runs/rooms-1 \
      --config.model.path=BASE --config.rng_seed=1 --config.compare.seeds=1 \
      --config.pool.data=POOLS/rooms/pool.json \
      --config.pool.images=POOLS/rooms/images \
      --config.evaluate.tasks=POOLS/rooms/eval.jsonl

The decoder is SmolLM2-135M (`real_base`), the pools are those of `real_pools`, and
every arm is tuned for one epoch by the same recipe: LoRA, which on a CPU takes two
thirds of the time of full fine-tuning. Each seed has a seed model, scores and arms of
its own. What `compare/results.json` says of each arm is kept under docs/headline/:
real-<pool>-<seed>.json. `benchmarks.merge_comparisons` reads such files together.
"""

from mllm_selector_jax.configs import default


def get_config():
  cfg = default.get_config()
  # A row holds 16 tokens of its image, 12 that frame its turns, and its question and
  # answer. The base's own chat template is ChatML without a system text, where that of
  # SmolLM2 would add one of 21 tokens to every row.
  cfg.model.conversation = "auto"
  cfg.model.max_length = 192

  cfg.seed.rows = "20%"
  for section in (cfg.seed, cfg.tune, cfg.align):
    section.batch = 16
    section.learning_rate = 1e-3
    section.warmup = 0.05
    section.b2 = 0.99
    section.row_length = 192
    section.save_every = 0
    section.lora.alpha = 32.0
  for section in (cfg.seed, cfg.tune):
    section.lora.rank = 16
    # Twice the steps of 16: after 300 rows of `photos` the loss is .5 instead of .9.
    section.batch = 8
    section.row_length = 384  # nearly always holds a batch

  cfg.score.row_length = 192
  cfg.score.batch_rows = 8
  cfg.score.part_rows = 1024
  cfg.compare.strategies = "kl"
  cfg.compare.budgets = "5%,20%,50%"
  cfg.evaluate.limit = 300
  cfg.evaluate.batch = 32
  cfg.evaluate.max_new_tokens = 8
  cfg.report.title = "Headline: SmolLM2-135M, one epoch"
  return cfg
