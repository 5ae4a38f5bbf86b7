"""The loss of the right answers under tuned models: a finer measure than exact match.

    python -m benchmarks.answer_loss --base=BASE --tasks=POOLS/mixture/eval.jsonl \
      --images=POOLS/mixture/images --workdir=runs/loss --out=real-losses.json \
      "runs/mixture-1/arms/kl-5%-1" "runs/mixture-1/arms/random-5%-1" ...

Every question of the file is a row whose answer is its first right one, and is scored
by each arm's model as a pool is. A model of few steps answers hardly any question
right, so that exact match depends on which answer it happens to give most often. The
loss, in nats a token, says how likely the right answers have become. Prints the mean
over tasks, and adds what it measured to the JSON file, by arm. Models that were
measured before are passed over.
"""

import argparse
import json
import re
import shutil
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks import headline_real
from mllm_selector_jax.runs import context
from mllm_selector_jax.scoring.score_table import read_scores
from mllm_selector_jax.stages import COMMANDS


def make_pool(tasks: Path, pool: Path) -> list[str]:
  """Writes the questions of a file as the rows of a pool; returns each one's task."""
  questions = [json.loads(line) for line in tasks.read_text().splitlines()]
  rows = [
    {
      "id": item["id"],
      "source": item["task"],
      "image": item["image"],
      "conversations": [
        {"from": "human", "value": "<image>\n" + item["question"]},
        {"from": "gpt", "value": item["answers"][0]},
      ],
    }
    for item in questions
  ]
  pool.write_text(json.dumps(rows))
  return [item["task"] for item in questions]


def make_config(arguments: argparse.Namespace, pool: Path, model: Path):
  cfg = headline_real.get_config()
  cfg.model.path = arguments.base
  cfg.pool.data, cfg.pool.images = str(pool), arguments.images
  cfg.score.model, cfg.score.signals = str(model), "loss,accuracy"
  return cfg


def measure(arguments: argparse.Namespace, arm: Path) -> dict[str, float]:
  """The mean loss of each task's answers under the model of an arm."""
  pool = arguments.workdir / "questions.json"
  tasks = np.array(make_pool(arguments.tasks, pool))
  folder = arguments.workdir / f"{arm.parent.parent.name}-{arm.name}"
  cfg = make_config(arguments, pool, arm / "tuned" / "hf")
  with context.open_run(cfg, str(folder)) as run:
    for command in ("check", "score"):
      COMMANDS[command](run)
    table = read_scores(run.workdir.scores.path)
    rows, losses = table.row, table.columns["loss"]
  shutil.rmtree(folder)
  return {
    task: float(losses[tasks[rows] == task].mean()) for task in sorted(set(tasks))
  }


def format_line(name: str, losses: dict[str, float]) -> str:
  cells = [f"{fmean(losses.values()):.3f}", *(f"{x:.2f}" for x in losses.values())]
  return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("arms", nargs="+", type=Path, help="folders of arms")
  parser.add_argument("--base", required=True)
  parser.add_argument("--tasks", type=Path, required=True)
  parser.add_argument("--images", required=True)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--out", type=Path, required=True)
  arguments = parser.parse_args()
  arguments.workdir.mkdir(parents=True, exist_ok=True)
  found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
  for arm in arguments.arms:
    pool = re.sub(r"-\d+$", "", arm.parent.parent.name)
    name = f"{pool} {arm.name}"
    if name not in found:
      found[name] = measure(arguments, arm)
      arguments.out.write_text(json.dumps(found, indent=1) + "\n")
  heads = ["arm", "mean", *next(iter(found.values()))]
  print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
  print("\n".join(format_line(name, losses) for name, losses in found.items()))


if __name__ == "__main__":
  main()
