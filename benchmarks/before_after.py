"""Speed of scoring and training in LLaVA-1.5's form, of two checkouts in turns.

    git worktree add ../before COMMIT
    python -m benchmarks.before_after --other=../before
    python -m benchmarks.before_after --other=../before --size=tiny --samples=64 \
      --turns=2 --steps=4                                       # a smoke

Each checkout has a process of its own, which imports package and benchmarks from there
and makes the same pool, weights and batches as benchmarks/scoring.py and training.py.
It compiles everything, and then waits. The processes take turns: a scoring pass over
the pool with sharing, one without, and some training steps. Which one is first
changes from turn to turn. Told is the median of the turns' ratios of samples a
second, this checkout over the other one, with quartiles, by wall and by CPU time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parents[1]
READY = "ready"


def read_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--other", type=Path, help="a checkout; none compares this one with itself"
  )
  parser.add_argument("--samples", type=int, default=600)
  parser.add_argument("--size", default="small", help="of scoring_models.SIZES")
  parser.add_argument("--side", type=int, default=64, help="pixels of an image")
  parser.add_argument("--patch", type=int, default=8, help="pixels of a patch")
  parser.add_argument("--row_length", type=int, default=256)
  parser.add_argument("--batch_tokens", type=int, default=4096, help="of scoring")
  parser.add_argument("--batch", type=int, default=32, help="samples a training step")
  parser.add_argument("--steps", type=int, default=8, help="of training, a turn")
  parser.add_argument("--turns", type=int, default=9)
  parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
  return parser.parse_args()


def make_tasks(arguments: argparse.Namespace) -> dict[str, Any]:
  """What is timed, by name: functions without arguments that return samples."""
  import numpy as np

  from benchmarks import scoring, scoring_models, scoring_pools, training
  from mllm_selector_jax.models import mllm

  try:
    from mllm_selector_jax.training.optimizer_options import OptimizerOptions
  except ModuleNotFoundError:  # an older checkout
    from mllm_selector_jax.training.optimizer import OptimizerOptions

  arguments.row_lengths = str(arguments.row_length)
  arguments.batch_tokens, arguments.threads = str(arguments.batch_tokens), "0"
  arguments.loss_alone = False
  hf_config = scoring_models.make_hf_config(
    arguments.size, arguments.side, arguments.patch
  )
  config = scoring_models.make_config(hf_config, "float32")
  pool = scoring_pools.make_like_665k(arguments.samples, config)
  params = scoring_models.draw_params(config)
  tasks = {}
  for name, share in (("scoring, shared", True), ("scoring, alone", False)):
    method = scoring.Ours(arguments, config, params, pool, share)
    (setting,) = method.settings
    method.prepare(setting)

    def score(method=method, setting=setting):
      method.run(setting)
      return arguments.samples

    tasks[name] = score
  rng = np.random.default_rng(0)
  steps = [
    rng.permutation(arguments.samples)[: arguments.batch]
    for _ in range(arguments.steps)
  ]
  trainer = training.Ours(
    arguments,
    config,
    pool,
    OptimizerOptions(1e-3, warmup=0.1),
    mllm.init(config, 0),
    steps * (arguments.turns + 1),
    arguments.row_length,
  )
  done = iter(range(arguments.steps * (arguments.turns + 1)))

  def train():
    for _ in range(arguments.steps):
      trainer.step(next(done))
    return arguments.steps * arguments.batch

  train()
  tasks["training"] = train
  return tasks


def work(arguments: argparse.Namespace) -> None:
  """In a checkout's process: carries out the task that each line of the input names."""
  from benchmarks.scoring import cpu_time
  from mllm_selector_jax.runs.memory import keep_freed_memory

  keep_freed_memory()
  answers, sys.stdout = sys.stdout, sys.stderr
  tasks = make_tasks(arguments)
  print(READY, json.dumps([*tasks]), file=answers, flush=True)
  for line in sys.stdin:
    begun = time.perf_counter(), cpu_time()
    samples = tasks[line.strip()]()
    seconds = time.perf_counter() - begun[0], cpu_time() - begun[1]
    print(json.dumps([samples / value for value in seconds]), file=answers, flush=True)


class Worker:
  """The process of a checkout."""

  def __init__(self, checkout: Path):
    place = str(checkout.absolute())
    self.process = subprocess.Popen(
      [sys.executable, "-P", __file__, *sys.argv[1:], "--work"],
      cwd=place,
      env={**os.environ, "PYTHONPATH": place, "PYTHONDONTWRITEBYTECODE": "1"},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    begun, _, names = self._read().partition(" ")
    assert begun == READY, begun
    self.names = json.loads(names)

  def _read(self) -> str:
    line = self.process.stdout.readline()
    assert line, f"a worker ended with status {self.process.wait()}"
    return line.strip()

  def run(self, name: str) -> tuple[float, float]:
    """Samples a second of a task, by wall and by CPU time."""
    self.process.stdin.write(name + "\n")
    self.process.stdin.flush()
    wall, cpu = json.loads(self._read())
    return wall, cpu

  def close(self) -> None:
    self.process.stdin.close()
    self.process.wait()


def format_ratios(here: list[float], there: list[float]) -> str:
  ratios = [a / b for a, b in zip(here, there, strict=True)]
  low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
  return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f})"


def main() -> None:
  arguments = read_arguments()
  if arguments.work:
    work(arguments)
    return
  checkouts = [ROOT, arguments.other or ROOT]
  workers = [Worker(checkout) for checkout in checkouts]  # one after the other
  names = workers[0].names
  told: dict[str, list[list[tuple[float, float]]]] = {name: [[], []] for name in names}
  for turn in range(arguments.turns):
    for name in names:
      for number in (0, 1) if turn % 2 == 0 else (1, 0):
        told[name][number].append(workers[number].run(name))
  for worker in workers:
    worker.close()
  print(f"load {os.getloadavg()[0]:.1f}")
  for name, (here, there) in told.items():
    rates = [statistics.median(wall for wall, _ in side) for side in (here, there)]
    wall, cpu = (
      format_ratios([pair[kind] for pair in here], [pair[kind] for pair in there])
      for kind in (0, 1)
    )
    print(
      f"{name:16} {rates[0]:8.1f} samples/s, the other {rates[1]:8.1f}; ratio by wall"
      f" time {wall}, by CPU time {cpu}",
      flush=True,
    )


if __name__ == "__main__":
  main()
