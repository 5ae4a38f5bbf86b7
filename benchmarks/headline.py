"""The headline comparison on drawn pools: its settings, frozen before it was run.

    mllm-selector compare --config=benchmarks/headline.py --workdir=runs/headline-11 \
      --config.compare.seeds=11
    mllm-selector compare --config=benchmarks/headline.py --workdir=runs/headline-11 \
      --config.compare.seeds=11 --config.compare.budgets=5%,20%,50% \
      --config.compare.strategies=stratified,top,...

Other pools have other seeds, and `--config.pool.demo.wrong` other shares of wrong
answers. Each such call's `compare/results.json` is kept under docs/headline/, and
`benchmarks.merge_comparisons` reads them together.
"""

from mllm_selector_jax.configs import demo


def get_config():
  cfg = demo.get_config()
  cfg.pool.demo.questions = 300
  cfg.compare.strategies = "kl"
  cfg.compare.budgets = "1%,5%,10%,20%,50%"
  cfg.compare.fresh_pools = True
  cfg.report.title = "Headline: drawn pools of 6,000 rows"
  return cfg
