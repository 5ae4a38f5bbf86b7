"""The whole pipeline on a drawn pool with the tiny base; minutes on two CPU cores."""

from mllm_selector_jax.configs import default


def get_config():
  cfg = default.get_config()
  cfg.pool.demo.rows = 6000

  cfg.model.path = "demo"
  cfg.model.conversation = "vicuna_v1"
  cfg.model.system = ""  # the tiny base was trained without a system text
  cfg.model.max_length = 128

  # One epoch over all rows takes 1.25 times the steps of four epochs over a fifth of
  # them. Its loss tells wrong answers apart better, because the seed model memorises
  # none of them (docs/results/selection.md, "The seed").
  cfg.seed.rows = "100%"
  cfg.seed.epochs = 1
  for section in (cfg.seed, cfg.tune):
    section.batch = 32
    section.learning_rate = 1e-3
    section.warmup = 0.05
    section.weight_decay = 0.01
    section.b2 = 0.99
    section.row_length = 80
  cfg.tune.epochs = 10

  cfg.score.row_length = 80
  cfg.score.batch_rows = 32
  cfg.score.part_rows = 2048

  cfg.evaluate.max_new_tokens = 8
  cfg.report.title = "The drawn demo pool"
  return cfg
