"""What the seed model's rows and epochs do to finding the pool's wrong rows.

  python -m benchmarks.seeds --workdir=runs/seeds --pools=3,4

Each drawn demo pool is scored by seed models of all `--seeds`, shares of the pool by
epochs. Prints, as means over the pools: epochs of the whole pool that the seed cost,
the share of rows that it gets wholly right, the area under the ROC curve by which its
loss tells wrong or misaligned rows from the others of their cluster, and of the bounds
`mixture` and 0.15 precision, recall, and the share lost of the sound rows and of those
of the three smallest tasks. What has been made is kept.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from benchmarks.bounds import NONE, measure_tasks
from mllm_selector_jax.configs import demo
from mllm_selector_jax.pipeline import candidates
from mllm_selector_jax.runs import context
from mllm_selector_jax.selection.eligibility import sort_out
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.stages import COMMANDS

SEEDS = "20%x1,20%x2,20%x4,20%x8,50%x1,50%x2,50%x3,100%x1,100%x2"
BOUNDS = ("mixture", 0.15)
LEAST = 30  # rows of a group that has a curve


def score_pool(folder: Path, pool: int, rows: int, share: str, epochs: int):
  """Eligible rows and the truth of a pool scored by this seed model."""
  cfg = demo.get_config()
  cfg.rng_seed = cfg.pool.demo.seed = pool
  cfg.pool.demo.rows = rows
  cfg.seed.rows, cfg.seed.epochs = share, epochs
  with context.open_run(cfg, str(folder)) as run:
    COMMANDS["check"](run)
    COMMANDS["seed"](run)
    COMMANDS["score"](run)
    eligible = candidates.read_eligible(run, candidates.make_config(run), pool)
  table = pq.read_table(folder / "demo_pool" / "truth.parquet")
  truth = {name: table[name].to_numpy() for name in ("wrong", "misaligned")}
  return eligible, truth | {"task": np.array(table["task"].to_pylist())}


def area_inside_groups(loss, bad, groups) -> float:
  """Mean area under the groups' curves, by their rows."""
  areas, sizes = [], []
  for group in np.unique(groups):
    own = groups == group
    if own.sum() >= LEAST and 0 < bad[own].sum() < own.sum():
      areas.append(roc_auc_score(bad[own], loss[own]))
      sizes.append(own.sum())
  return float(np.average(areas, weights=sizes))


def measure(eligible, truth) -> list[float]:
  """A line of the table, without what the seed cost."""
  signals = eligible.scores.signals
  bad = (truth["wrong"] | truth["misaligned"])[eligible.rows]
  line = [
    float((signals["accuracy"] >= 1).mean()),
    area_inside_groups(signals["loss"], bad, eligible.groups.index),
  ]
  for bound in BOUNDS:
    options = dataclasses.replace(SelectOptions(), **{**NONE, "bound": bound})
    found = sort_out(eligible.scores, eligible.groups, 0, options, True).suspect
    tail = measure_tasks(eligible, truth, found)["the smallest 3"][3]
    line += [
      (found & bad).sum() / max(found.sum(), 1),
      found[bad].mean(),
      found[~bad].mean(),
      tail,
    ]
  return line


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--pools", default="3,4")
  parser.add_argument("--seeds", default=SEEDS)
  parser.add_argument("--rows", type=int, default=6000)
  arguments = parser.parse_args()
  heads = "".join(
    f" `{bound}`: precision | recall | sound lost | tail lost |" for bound in BOUNDS
  )
  print(f"| seed | epochs of the pool | wholly right | AUC |{heads}")
  print("|---" * (4 + 4 * len(BOUNDS)) + "|")
  for seed in arguments.seeds.split(","):
    share, epochs = seed.split("x")
    lines = [
      measure(
        *score_pool(
          arguments.workdir / f"{pool}-{share[:-1]}-{epochs}",
          int(pool),
          arguments.rows,
          share,
          int(epochs),
        )
      )
      for pool in arguments.pools.split(",")
    ]
    cells = " | ".join(f"{value:.3f}" for value in np.mean(lines, axis=0))
    cost = float(share[:-1]) / 100 * int(epochs)
    print(f"| {share} x {epochs} | {cost:.1f} | {cells} |", flush=True)


if __name__ == "__main__":
  main()
