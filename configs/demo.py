"""The whole pipeline on a drawn pool and the tiny base, minutes on two cores."""

from mllm_selector_jax.configs import default


def get_config():
  cfg = default.get_config()
  cfg.pool.demo.rows = 6000

  cfg.model.path = "demo"
  cfg.model.system = ""  # the tiny base was trained without a system text
  cfg.model.max_length = 128

  # One look at every row: as many steps as four at a fifth of them, and a loss that
  # tells wrong answers better, since none is learned by heart (docs/results.md).
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
