"""The comparison with an incumbent on drawn pools: frozen before it was run.

The paper compares a selection from a larger pool with a fixed mixture, LLaVA-1.5's.
Here the incumbent has half of the rows of a drawn pool and, in bulk, half of its tasks:
of its rows, .95 are from the five tasks that are the head of the pool (`HEAD`: .74 of
the pool's rows) and .05 from the other six (.26 of the pool). Inside these two parts
rows are drawn at random, with the pool's share of wrong answers. So the pool has twice
the rows, and six tasks that the incumbent hardly has. The arms are the incumbent, and
`kl` and random of the pool at 1, 50 and 100 % of the incumbent's size, all for ten
epochs. The full pool is left out: the headline has it.

    python -m benchmarks.headline_reference --seed=61 --out=runs/incumbent-61.txt
    mllm-selector compare --config=benchmarks/headline_reference.py \
      --workdir=runs/reference-61 --config.compare.seeds=61 \
      --config.select.reference=runs/incumbent-61.txt

Other seeds are other pools, each with an incumbent and a workdir of its own. Their
`compare/results.json` are kept under docs/headline/, as reference-61.json and so on.

    python -m benchmarks.merge_comparisons docs/headline/reference-*.json
"""

import argparse
from pathlib import Path

import numpy as np

from mllm_selector_jax.configs import demo
from mllm_selector_jax.data.files.id_list import Line, write_lines
from mllm_selector_jax.demo.pool_mixture import PlannedRow, plan_pool
from mllm_selector_jax.inputs.drawn_demo import make_options

SHARE = 0.5  # of the pool's rows that the incumbent has
HEAD = ("shape", "color", "existence", "count", "position")
HEAD_SHARE = 0.95  # of the incumbent's rows that are from these tasks


def get_config():
  cfg = demo.get_config()
  cfg.pool.demo.questions = 300
  cfg.compare.strategies = "kl"
  cfg.compare.budgets = "1%ref,50%ref,100%ref"
  cfg.compare.fresh_pools = True
  cfg.compare.full = False
  cfg.report.title = "A head-heavy incumbent against drawn pools of twice its size"
  return cfg


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--seed", type=int, required=True, help="of the pool")
  parser.add_argument("--out", type=Path, required=True, help="the list to write")
  arguments = parser.parse_args()
  cfg = get_config()
  cfg.pool.demo.seed = arguments.seed
  options, _ = make_options(cfg.pool.demo)
  rows = draw_incumbent(plan_pool(options), arguments.seed)
  arguments.out.parent.mkdir(parents=True, exist_ok=True)
  write_lines(arguments.out, (Line(row.id, row.row, "") for row in rows))
  head = sum(row.task in HEAD for row in rows)
  print(f"{arguments.out}: {len(rows):,} rows, {head:,} of them from {', '.join(HEAD)}")


def draw_incumbent(pool: list[PlannedRow], seed: int) -> list[PlannedRow]:
  """Returns the rows of the incumbent, in the order of the pool.

  Args:
    pool: all rows of a drawn pool. Those that are broken are not drawn.
    seed: seed of the draw.
  """
  usable = [row for row in pool if not row.broken]
  parts = [
    [row for row in usable if (row.task in HEAD) == is_head]
    for is_head in (True, False)
  ]
  total = round(SHARE * len(pool))
  head = round(HEAD_SHARE * total)
  rng = np.random.default_rng(seed)
  drawn = [
    part[place]
    for part, count in zip(parts, (head, total - head), strict=True)
    for place in rng.choice(len(part), count, replace=False)
  ]
  return sorted(drawn, key=lambda row: row.row)


if __name__ == "__main__":
  main()
