"""The headline comparison on easy-VQA: its settings, frozen before it was run.

    mllm-selector compare --config=benchmarks/headline_easy.py --workdir=runs/easy-1 \
      --config.rng_seed=1 --config.compare.seeds=1 --config.pool.data=easy.yaml \
      --config.pool.images=EASY/images --config.evaluate.tasks=EASY/eval.json

`easy.yaml` is a mixture that takes 8,000 rows at random, others with every seed:

    datasets:
      - {json_path: EASY/pool.json, sampling_strategy: "random:8000"}

Such calls' `compare/results.json` are read together by `benchmarks.merge_comparisons`.
"""

from mllm_selector_jax.configs import easy_vqa


def get_config():
  cfg = easy_vqa.get_config()
  cfg.compare.strategies = "kl,stratified"
  cfg.compare.budgets = "5%,20%,50%"
  cfg.report.title = "Headline: 8,000 rows of easy-VQA"
  return cfg
