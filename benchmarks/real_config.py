"""The real base on a pool of short answers: one epoch, on two CPU cores.

    python -m benchmarks.real_base --out=BASE
    mllm-selector compare --config=benchmarks/real_config.py --workdir=runs/real-1 \
      --config.model.path=BASE --config.pool.data=POOL/pool.json \
      --config.pool.images=POOL/images --config.evaluate.tasks=POOL/eval.jsonl

A row holds 16 tokens of its image, 12 that frame its turns, and its question and
answer.
"""

from mllm_selector_jax.configs import default


def get_config():
  cfg = default.get_config()
  # The base's own chat template is ChatML without a system text, where that of
  # SmolLM2 would add one of 21 tokens to every row.
  cfg.model.conversation = "auto"
  cfg.model.max_length = 192

  cfg.seed.rows = "20%"
  for section in (cfg.seed, cfg.tune, cfg.align):
    section.batch = 16
    section.learning_rate = 1e-3
    section.warmup = 0.05
    section.b2 = 0.99
    section.row_length = 192  # four rows of a pool of short answers
    section.save_every = 0
    section.lora.alpha = 32.0
  for section in (cfg.seed, cfg.tune):
    section.lora.rank = 16

  cfg.score.row_length = 192
  cfg.score.batch_rows = 8
  cfg.score.part_rows = 1024
  cfg.evaluate.batch = 32
  cfg.evaluate.max_new_tokens = 8
  cfg.report.title = "SmolLM2-135M with a small vision tower"
  return cfg
