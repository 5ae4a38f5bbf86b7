"""What the allocator's settings save of a training step on a CPU.

  python benchmarks/allocator.py

Two fresh processes train the tiny base on the same drawn batch, one with glibc's
defaults and one with `runs.memory.keep_freed_memory`; five times, in turn. Prints
medians of the step's wall time, CPU time in the kernel, and page faults.
"""

import json
import resource
import subprocess
import sys
import time

import numpy as np

STEPS, ROUNDS, ROWS, LENGTH = 20, 5, 16, 80


def measure(keep: bool) -> dict[str, float]:
  """A step's milliseconds and faults in this process."""
  if keep:
    from mllm_selector_jax.runs.memory import keep_freed_memory

    assert keep_freed_memory()
  import jax

  from mllm_selector_jax.inputs.base_model import DEMO_BASE
  from mllm_selector_jax.models import huggingface
  from mllm_selector_jax.training import train_step as steps
  from mllm_selector_jax.types import Batch

  config = huggingface.read_config(DEMO_BASE)
  params = huggingface.read_params(DEMO_BASE, config)
  rng = np.random.default_rng(0)
  patches = np.full((ROWS, LENGTH), -1, np.int32)
  every = np.arange(ROWS * config.patches).reshape(ROWS, -1)
  patches[:, 5 : 5 + config.patches] = every
  side = config.vision.image_size
  batch = Batch(
    tokens=rng.integers(5, 800, (ROWS, LENGTH), np.int32),
    positions=np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (ROWS, LENGTH)),
    segments=np.ones((ROWS, LENGTH), np.int32),
    patches=patches,
    images=rng.integers(0, 256, (1, ROWS, side, side, 3), np.uint8),
    predict=rng.integers(0, ROWS * LENGTH, (1, ROWS * 8), np.int32),
    targets=rng.integers(5, 800, (1, ROWS * 8), np.int32),
    weights=np.ones((1, ROWS * 8), np.float32),
    answers=np.zeros((1, 2), np.int32),
  )
  trainable, frozen = steps.split_params(params, "decoder")

  def loss(trainable, frozen, batch):
    return steps.batch_loss(config, {**frozen, **trainable}, batch)

  gradient = jax.jit(jax.value_and_grad(loss))
  jax.block_until_ready(gradient(trainable, frozen, batch))
  before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
  for _ in range(STEPS):
    jax.block_until_ready(gradient(trainable, frozen, batch))
  wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
  return {
    "wall ms": 1e3 * wall / STEPS,
    "kernel ms": 1e3 * (after.ru_stime - before.ru_stime) / STEPS,
    "page faults": (after.ru_minflt - before.ru_minflt) / STEPS,
  }


def main():
  if len(sys.argv) > 1:
    print(json.dumps(measure(sys.argv[1] == "keep")))
    return
  found = {"default": [], "keep": []}
  for _ in range(ROUNDS):
    for name, runs in found.items():
      done = subprocess.run(
        [sys.executable, __file__, name], capture_output=True, text=True, check=True
      )
      runs.append(json.loads(done.stdout))
  for name, runs in found.items():
    medians = {key: np.median([run[key] for run in runs]) for key in runs[0]}
    print(name, {key: round(float(value), 1) for key, value in medians.items()})


if __name__ == "__main__":
  main()
