"""The headline comparison on drawn pools: its settings, frozen before it was run.

    mllm-selector compare --config=benchmarks/headline.py --workdir=runs/headline-21 \
      --config.compare.seeds=21
    mllm-selector compare --config=benchmarks/headline.py --workdir=runs/headline-21 \
      --config.compare.seeds=21 --config.compare.budgets=5%,20%,50% \
      --config.compare.strategies=kl,stratified,top,...

Other pools have other seeds, and `--config.pool.demo.wrong` other shares of wrong
answers. What `compare/results.json` says of each arm is kept under docs/headline/: 12-*
(12 % wrong), 0-* and 30-*; rivals-* (rivals-0-* without wrong answers), parts-* and
duplicates-* are other arms, easy-* of benchmarks/headline_easy.py, and quantile/ of the
older default.
`benchmarks.merge_comparisons` reads such files together. The README's picture has ten
pools up to 20 % and five at 50 and 100 %:

    python -m benchmarks.merge_comparisons docs/headline/12-*.json \
      --strategies=kl,random --by_budget --plot=docs/headline.png
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
