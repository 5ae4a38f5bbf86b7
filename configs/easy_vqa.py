"""The tiny base on the easy-VQA pool; the paths are given on the command line.

mllm-selector --config=configs/easy_vqa.py --workdir=runs/easy_vqa \
    --config.pool.data=EASY/pool.json --config.pool.images=EASY/images \
    --config.evaluate.tasks=EASY/eval.json
"""

from mllm_selector_jax.configs import demo


def get_config():
  cfg = demo.get_config()
  cfg.pool.demo.rows = 0
  for section in (cfg.seed, cfg.score, cfg.tune):
    section.row_length = 96  # room for two rows of the pool, of 42 to 47 tokens each
  cfg.evaluate.rules = (
    ("yes or no", r"^(is|does|are) "),
    ("colour", r"colou?r"),
    ("shape", r"shape"),
  )
  cfg.evaluate.limit = 3000
  cfg.report.title = "easy-VQA"
  return cfg
