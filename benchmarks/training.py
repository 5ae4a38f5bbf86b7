"""Training beside transformers' torch LLaVA: same weights, same samples, one run.

    python -m benchmarks.training                       # lengths like LLaVA's 665K
    python -m benchmarks.training --size=1b --side=336 --patch=14 --dtype=bfloat16 \
      --samples=2048 --batch=64 --row_lengths=2048 --budgets=16384,32768 --steps=12 \
      --remat=full --matmul=8192

Both sides start from the same float32 weights and tune projector and decoder by AdamW
with a cosine and clipping; a step's samples are the same. Ours are packed into rows
(`make_train_step`, assembling included), whose number takes three values at most as in
a run of 200 steps; torch's are padded micro-batches sorted by length
(training_torch.py, collating included). Each side takes the fastest of its
settings, tried before the clock starts; then the sides take turns, step by step.
Medians are told, and the median of the steps' ratios, since a machine has fast and
slow minutes. CPU time is of all threads. On a GPU MFU is told against the published
peak and against a matmul of this run; `--alone` leaves torch out.
"""

import argparse
import os
import time
from typing import Any

import numpy as np

from benchmarks.scoring import cpu_time, integers
from mllm_selector_jax.runs.memory import keep_freed_memory


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
  """From these words; None: from the command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--samples", type=int, default=512)
  parser.add_argument("--size", default="small", help="of scoring_models.SIZES")
  parser.add_argument("--side", type=int, default=64, help="pixels of an image")
  parser.add_argument("--patch", type=int, default=8, help="pixels of a patch")
  parser.add_argument("--dtype", default="float32")
  parser.add_argument("--remat", default="none")
  parser.add_argument(
    "--checkpoint", action="store_true", help="torch computes activations again"
  )
  parser.add_argument("--rank", type=int, default=0, help="of LoRA; 0 tunes in full")
  parser.add_argument("--batch", type=int, default=32, help="samples a step")
  parser.add_argument("--steps", type=int, default=30, help="timed, of each side")
  parser.add_argument("--row_lengths", default="256,512", help="tuned over (ours)")
  parser.add_argument("--budgets", default="1024,2048,8192", help="tuned over (torch)")
  parser.add_argument("--matmul", type=int, default=2048, help="side of the anchor")
  parser.add_argument("--alone", action="store_true", help="without torch")
  return parser.parse_args(words)


def prepare(arguments: argparse.Namespace) -> tuple[Any, ...]:
  """What both sides take before their setting, drawn from one seed."""
  from benchmarks import scoring_models, scoring_pools
  from mllm_selector_jax.models import mllm
  from mllm_selector_jax.models.lora_options import LoraConfig
  from mllm_selector_jax.training.optimizer_options import OptimizerOptions

  hf_config = scoring_models.make_hf_config(
    arguments.size, arguments.side, arguments.patch
  )
  config = scoring_models.make_config(hf_config, arguments.dtype, arguments.remat)
  pool = scoring_pools.make_like_665k(arguments.samples, config)
  params = mllm.init(config, 0)
  if arguments.rank:
    lora = LoraConfig(arguments.rank, 2 * arguments.rank)
    config, params = mllm.add_adapter(config, params, lora, 0)
  rng, count = np.random.default_rng(0), arguments.steps + 2
  steps = [
    rng.permutation(arguments.samples)[: arguments.batch] for _ in range(max(count, 4))
  ]
  options = OptimizerOptions(1e-3, warmup=0.1)
  return arguments, config, pool, options, params, steps


class Ours:
  """The production step on packed rows; a setting is the row length.

  With `keep` the parameters are copied, and the step is compiled ahead, on a copy of
  the state. Without, there is one of each, and the first steps compile.
  """

  def __init__(
    self,
    arguments,
    config,
    pool,
    options,
    params,
    steps,
    row_length: int,
    keep: bool = True,
  ):
    import jax

    from mllm_selector_jax import sharding
    from mllm_selector_jax.data.packing import (
      assembly,
      batch_shapes,
      loader,
      row_packing,
    )
    from mllm_selector_jax.models import attention_check
    from mllm_selector_jax.models.axes import logical_axes
    from mllm_selector_jax.training import optimizer, train_step, work

    self.jax, self.mesh = jax, sharding.make_mesh()
    lengths = pool.table.tokens
    length = row_packing.row_length_for(lengths, row_length)
    packed = [row_packing.pack(lengths[items], length) for items in steps]
    self.laid = batch_shapes.lay_out(
      [
        [[int(items[i]) for i in row] for row in rows]
        for items, rows in zip(steps, packed, strict=True)
      ],
      assembly.Counts.of_pool(pool.table),
      lengths,
      length,
      config.tiling,
      sharding.row_ways(self.mesh),
      batch_shapes.MOST,  # a run of so few steps would have one
    )
    self.make = loader.MakeStep(pool, self.laid.shapes)
    layout = sharding.parameter_shardings(params, logical_axes(params), self.mesh)
    params = jax.device_put(params, layout)
    if keep:
      params = jax.tree.map(lambda x: x.copy(), params)
    self._use = lambda: sharding.use(self.mesh)
    with self._use():
      laid = sharding.put_rows(self._batch(0), self.mesh)
      config = attention_check.choose_kernel(config, params, laid, print)
    self.kernel = config.attention
    trained, self.frozen = train_step.split_params(params, "decoder")
    made = optimizer.make_optimizer(options, len(steps))
    self.state, shardings = train_step.init_state(made, trained)
    self.fn = train_step.make_train_step(config, made, shardings)
    self.count = work.make_count(config, params, trained.keys())
    self.put = lambda batch: sharding.put_rows(batch, self.mesh)
    self.flops = self.places = self.tokens = 0.0
    if keep:
      self._warm()

  def _warm(self) -> None:
    """Compiles the step for every shape; nothing is trained."""
    for which in range(len(self.laid.shapes)):
      number = int(np.flatnonzero(self.laid.which == which)[0])
      state = self.jax.tree.map(lambda x: x.copy(), self.state)
      with self._use():
        self.fn(state, self.frozen, self.put(self._batch(number)))

  def _batch(self, number: int):
    from mllm_selector_jax.data.packing import loader

    trees = loader.as_trees(self.laid.steps[number])
    return self.make((int(self.laid.which[number]), trees))[0]

  def trace(self, number: int, count):
    """What a function says of the program of a step."""
    batch = self._batch(number)
    with self._use():
      traced = self.fn.trace(self.state, self.frozen, self.put(batch))
    return count(traced.jaxpr)

  def step(self, number: int) -> float:
    batch = self._batch(number)
    with self._use():
      self.state, values = self.fn(self.state, self.frozen, self.put(batch))
      loss = float(values["loss"])
    found = self.count(batch)
    self.flops, self.places, self.tokens = found.flops, found.places, found.tokens
    return loss


class Theirs:
  """torch; a setting is the budget of padded tokens."""

  def __init__(self, arguments, config, pool, options, params, steps, budget: int):
    from benchmarks import scoring_models, scoring_torch, training_torch

    hf_config = scoring_models.make_hf_config(
      arguments.size, arguments.side, arguments.patch
    )
    wide = scoring_models.make_config(hf_config, "float32")
    base = {name: part for name, part in params.items() if name != "adapter"}
    model = scoring_models.make_torch_model(hf_config, wide, base)
    rival = scoring_torch.make_rival(model, config, pool)
    self.trainer = training_torch.Trainer(
      rival, options, len(steps), budget, arguments.checkpoint
    )
    self.steps = steps

  def step(self, number: int) -> float:
    return self.trainer.step(self.steps[number])


def time_step(side: Any, number: int) -> tuple[float, float, float]:
  """Loss, seconds, and CPU seconds of all threads."""
  begun = time.perf_counter(), cpu_time()
  loss = side.step(number)
  return loss, time.perf_counter() - begun[0], cpu_time() - begun[1]


def tune(make: Any, settings: list[int], name: str) -> Any:
  """A fresh side with the setting whose median of three steps is the least."""
  found = {}
  for setting in settings:
    side = make(setting)
    side.step(0)
    found[setting] = float(np.median([time_step(side, n)[1] for n in (1, 2, 3)]))
    del side
  best = min(found, key=found.get)
  tried = ", ".join(f"{setting}: {value:.3f} s" for setting, value in found.items())
  print(f"{name}: {tried}; takes {best}", flush=True)
  return make(best)


def main() -> None:
  keep_freed_memory()
  arguments = read_arguments()
  import jax

  from benchmarks import scoring_report
  from mllm_selector_jax.training import peaks

  given = prepare(arguments)
  arguments.methods = "" if arguments.alone else "B"
  scoring_report.describe(arguments, *given[1:3])
  rates = scoring_report.measure_matmuls(arguments)
  sides = {
    "ours": tune(lambda n: Ours(*given, n), integers(arguments.row_lengths), "ours")
  }
  if not arguments.alone:
    settings = integers(arguments.budgets)
    sides["torch"] = tune(lambda n: Theirs(*given, n), settings, "torch")
  told: dict[str, list] = {name: [] for name in sides}
  work_of = []
  for number in range(arguments.steps + 2):
    for name in sorted(sides, reverse=bool(number % 2)):
      told[name].append(time_step(sides[name], number))
    work_of.append((sides["ours"].flops, sides["ours"].places, sides["ours"].tokens))
  # The first two steps warm caches.
  losses = {name: np.array([line[0] for line in lines]) for name, lines in told.items()}
  times = {
    name: np.array([line[1:] for line in lines[2:]]) for name, lines in told.items()
  }
  flops, places, tokens = np.array(work_of[2:]).T
  print(f"load {os.getloadavg()[0]:.1f}; attention {sides['ours'].kernel}")
  for name, each in times.items():
    wall, cpu = np.median(each, 0)
    low, high = np.percentile(each[:, 0], [25, 75])
    print(
      f"{name:5} {wall * 1e3:8.1f} ms a step (quartiles {low * 1e3:.1f} to"
      f" {high * 1e3:.1f}), CPU {cpu * 1e3:.1f} ms, {np.median(tokens) / wall:,.0f}"
      f" tokens/s"
    )
  if "torch" in times:
    ratio = times["torch"] / times["ours"]
    wall, cpu = np.median(ratio, 0)
    apart = np.abs(losses["ours"] / losses["torch"] - 1)
    print(
      f"ours is {wall:.2f} x torch by wall time (quartiles"
      f" {np.percentile(ratio[:, 0], 25):.2f} to {np.percentile(ratio[:, 0], 75):.2f}),"
      f" {cpu:.2f} x by CPU time; losses {losses['ours'][0]:.3f} ->"
      f" {losses['ours'][-1]:.3f}, apart by {apart.max():.1e} at most over"
      f" {len(apart)} steps"
    )
  again = scoring_report.measure_matmuls(arguments)
  rates = {name: max(rate, again[name]) for name, rate in rates.items()}
  done = np.median(flops / times["ours"][:, 0])
  print(
    f"ours does {done / 1e9:,.1f} model GFLOP/s, {done / rates['jax']:.1%} of the"
    f" matmul; padding {1 - tokens.sum() / places.sum():.1%}"
  )
  peak = peaks.peak_flops(jax.devices()[0])
  if peak:
    print(f"MFU {done / peak / jax.device_count():.1%} of {peak / 1e12:.0f} TFLOP/s")


if __name__ == "__main__":
  main()
