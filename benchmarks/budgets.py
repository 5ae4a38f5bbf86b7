"""Strategies against budgets over fresh pools or seeds: the accuracy table.

  python benchmarks/budgets.py --workdir=runs/budgets_demo
  python benchmarks/budgets.py --workdir=runs/budgets_easy --pool=EASY/pool.json \
    --images=EASY/images --questions=EASY/eval.json --rows=8000

Every seed has its own seed model and score table, and for the demo its own drawn
pool; every arm has the same recipe. Arms that are done are not done again, so an
interrupted table goes on. Prints the table in Markdown and writes table.json.
"""

import collections
import json
import math
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from mllm_selector_jax.configs import demo, easy_vqa

from mllm_selector_jax import stages
from mllm_selector_jax.data import records
from mllm_selector_jax.evaluation import intervals
from mllm_selector_jax.stages import context
from mllm_selector_jax.stages.evaluate import evaluate_arm
from mllm_selector_jax.stages.select import select_arm
from mllm_selector_jax.stages.tune import tune_arm

WORKDIR = flags.DEFINE_string("workdir", None, "Where everything is written.")
POOL = flags.DEFINE_string("pool", None, "LLaVA JSON; none draws demo pools.")
IMAGES = flags.DEFINE_string("images", None, "Its image folder.")
QUESTIONS = flags.DEFINE_string("questions", None, "Its evaluation file.")
ROWS = flags.DEFINE_integer("rows", 6000, "Rows of each pool.")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Rng seeds, and demo pools.")
BUDGETS = flags.DEFINE_list("budgets", ["5%", "20%", "50%"], "Budgets.")
STRATEGIES = flags.DEFINE_list("strategies", ["kl", "random"], "Strategies.")
EPOCHS = flags.DEFINE_integer("epochs", None, "Of tuning; none is the config's.")
LIMIT = flags.DEFINE_integer("limit", 3000, "Questions of a given evaluation file.")
PER_TASK = flags.DEFINE_integer("per_task", 300, "Demo questions a task.")


def make_config(seed: int, folder: Path):
  """The config of one seed; a given pool is cut to a random share of its rows."""
  cfg = easy_vqa.get_config() if POOL.value else demo.get_config()
  cfg.rng_seed = seed
  if EPOCHS.value:
    cfg.tune.epochs = EPOCHS.value
  if not POOL.value:
    cfg.pool.demo.rows = ROWS.value
    cfg.pool.demo.seed = seed
    cfg.pool.demo.questions = PER_TASK.value
    return cfg
  cfg.pool.data = str(_cut_pool(folder, seed))
  cfg.pool.images = IMAGES.value
  cfg.evaluate.tasks = QUESTIONS.value
  cfg.evaluate.limit = LIMIT.value
  return cfg


def _cut_pool(folder: Path, seed: int) -> Path:
  path = folder / "pool.json"
  if not path.exists():
    pool = list(records.read_records(POOL.value))
    chosen = np.random.default_rng(seed).permutation(len(pool))[: ROWS.value]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([pool[i].value for i in sorted(chosen)]))
  return path


def run_seed(seed: int) -> dict[tuple[str, str], dict]:
  """Results of every arm of one seed."""
  folder = Path(WORKDIR.value) / f"seed-{seed}"
  found = {}
  with context.open_run(make_config(seed, folder), str(folder)) as run:
    stages.check(run)
    stages.seed(run)
    stages.score(run)
    arms = [(s, b) for b in BUDGETS.value for s in STRATEGIES.value]
    for strategy, budget in [*arms, ("full", "100%")]:
      arm = f"{strategy}-{budget}-{seed}"
      select_arm(run, arm, "random" if strategy == "full" else strategy, budget)
      tune_arm(run, arm)
      evaluate_arm(run, arm)
      path = run.workdir.evaluation(arm).path / "results.json"
      found[strategy, budget] = json.loads(path.read_text())
  return found


def format_table(results: list[dict[tuple[str, str], dict]]) -> str:
  """Means over seeds with 95 % t-intervals, and differences from random."""
  tasks = sorted(results[0]["full", "100%"]["tasks"])
  values = collections.defaultdict(list)
  for found in results:
    for arm, result in found.items():
      values[arm, "macro"].append(result["macro"]["value"])
      for task in tasks:
        values[arm, task].append(result["tasks"][task]["value"])

  def cell(numbers):
    if len(numbers) < 2:
      return f"{numbers[0]:.3f}"
    low, high = intervals.mean_interval(numbers)[1:3]
    half = (high - low) / 2
    return f"{np.mean(numbers):.3f} ± {half:.3f}" if math.isfinite(half) else "-"

  columns = ["macro", "macro - random", *tasks]
  lines = [
    f"| strategy | budget | {' | '.join(columns)} |",
    "|---" * (len(columns) + 2) + "|",
  ]
  for strategy, budget in results[0]:
    arm, control = (strategy, budget), ("random", budget)
    difference = ""
    if strategy not in ("random", "full") and (control, "macro") in values:
      pairs = zip(values[arm, "macro"], values[control, "macro"], strict=True)
      difference = cell([a - b for a, b in pairs])
    cells = [cell(values[arm, "macro"]), difference]
    cells += [f"{np.mean(values[arm, task]):.3f}" for task in tasks]
    lines.append(f"| {strategy} | {budget} | {' | '.join(cells)} |")
  return "\n".join(lines)


def main(_):
  logging.set_verbosity(logging.WARNING)
  results = []
  for seed in map(int, SEEDS.value):
    results.append(run_seed(seed))
    print(format_table(results), flush=True)
  written = [
    {f"{strategy} {budget}": result for (strategy, budget), result in found.items()}
    for found in results
  ]
  Path(WORKDIR.value, "table.json").write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
  flags.mark_flag_as_required("workdir")
  app.run(main)
