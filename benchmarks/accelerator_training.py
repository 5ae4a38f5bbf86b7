"""Tuning beside torch, a case a size, a way and a side: the command `training`.

What is measured is benchmarks/training.py's: the production step on packed rows, and
transformers' model with fused AdamW on padded micro-batches, from the same weights on
the same samples. "full" tunes projector and decoder, "lora" adapters of rank 64 in
place of the decoder, for which torch has peft. Model FLOPs are those of PaLM's
convention for what is real (training/work.py), the same for both sides; executed ones
are counted in the step's program, with what is recomputed, and without the attention of
cuDNN. Steps that compile are not timed.
"""

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator_ledger import Case

RANK = 64
COMMON = {
  "side": 336, "patch": 14, "dtype": "bfloat16", "samples": 1024, "matmul": 8192,
  "remat": "full", "row_lengths": "2048", "budgets": "8192", "steps": 12,
}  # fmt: skip
# Flags of benchmarks/training.py for each size, and the seconds of a case.
SIZES: dict[str, tuple[dict[str, Any], float]] = {
  "tiny": (
    {
      "samples": 24, "side": 32, "batch": 6, "steps": 4, "row_lengths": "64",
      "budgets": "256", "matmul": 256,
    },
    10.0,
  ),
  "small": (
    {
      "samples": 512, "batch": 32, "steps": 12, "row_lengths": "256",
      "budgets": "1024", "matmul": 2048,
    },
    60.0,
  ),
  "1b": ({**COMMON, "batch": 64, "budgets": "16384"}, 120.0),
  "3b": ({**COMMON, "batch": 32}, 200.0),
  "7b": ({**COMMON, "batch": 16, "budgets": "4096"}, 270.0),
}  # fmt: skip
WAYS = {"full": 0, "lora": RANK}
# The device's memory is given back at once, since torch follows in the same process.
TORCH = {"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"}


def list_cases(arguments: Any) -> list[Case]:
  cases = []
  for size in arguments.sizes.split(","):
    flags, seconds = SIZES.get(size, ({}, 0.0))
    for way, rank in WAYS.items() if flags else ():
      own = {**flags, "rank": 4 if rank and size == "tiny" else rank}
      cases.append(Case(f"training/{size}/{way}/ours", {"flags": own}, seconds))
      for side in ("torch", "torch_checkpointed"):
        theirs = {"flags": own, "environment": TORCH}
        cases.append(Case(f"training/{size}/{way}/{side}", theirs, seconds))
  return cases


def measure(key: str, settings: dict[str, Any], work: Path) -> dict[str, Any]:
  """A case's figures by name."""
  del work
  from benchmarks import accelerator_scoring, scoring, training
  from mllm_selector_jax.runs.memory import keep_freed_memory

  keep_freed_memory()
  _, size, _, name = key.split("/")
  words = [f"--{flag}={value}" for flag, value in settings["flags"].items()]
  words += ["--checkpoint"] if name == "torch_checkpointed" else []
  arguments = training.read_arguments([f"--size={size}", *words])
  by_torch = name != "ours"
  arguments.methods = "B" if by_torch else ""
  figures = accelerator_scoring.measure_rates(arguments, "B" if by_torch else "ours")
  held = scoring.held_memory()
  side, setting, needed = _make_side(arguments, by_torch)
  told = [training.time_step(side, number) for number in range(arguments.steps + 2)]
  timed = _find_timed(side, len(told))
  walls = [told[number][1] for number in timed]
  flops, tokens = np.mean([needed[number] for number in timed], axis=0)
  wall = statistics.median(walls)
  figures |= {
    "setting": setting,
    "s a step": wall,
    "fastest s": min(walls),
    "slowest s": max(walls),
    "samples/s": arguments.batch / wall,
    "tokens/s": tokens / wall,
    "model TFLOP a step": flops / 1e12,
    "model TFLOP/s": flops / wall / 1e12,
    "peak GB": scoring.read_peak(held, by_torch),
    "losses": [float(f"{loss:.9g}") for loss, *_ in told],
  }
  if not by_torch:
    executed_of = _count_executed(side)
    executed = np.mean([executed_of[int(side.laid.which[n])] for n in timed])
    figures |= {
      "kernel": side.kernel,
      "executed TFLOP a step": executed / 1e12,
      "executed TFLOP/s": executed / wall / 1e12,
    }
  return figures


def _make_side(arguments: Any, by_torch: bool) -> tuple[Any, int, list]:
  """The side, its setting, and FLOPs and tokens that each step asks for.

  A function of its own, after which nothing else holds the parameters.
  """
  from benchmarks import training

  given = training.prepare(arguments)
  _, config, pool, _, _, steps = given
  needed = [_count_needed(config, pool, items) for items in steps]
  text = arguments.budgets if by_torch else arguments.row_lengths
  (setting,) = training.integers(text)
  if by_torch:
    return training.Theirs(*given, setting), setting, needed
  return training.Ours(*given, setting, keep=False), setting, needed


def _count_needed(config: Any, pool: Any, items: np.ndarray) -> tuple[float, int]:
  """Model FLOPs and tokens of a step over those samples."""
  from mllm_selector_jax.models import mllm
  from mllm_selector_jax.training import train_step, work

  shapes = mllm.abstract(config)
  trained, _ = train_step.split_params(shapes, "decoder")
  table = pool.table
  lengths = table.tokens[items].astype(np.int64)
  flops = work.make_rates(config, shapes, trained.keys()).flops(
    int(lengths.sum()),
    int((lengths * (lengths + 1) // 2).sum()),
    int(table.supervised[items].sum()),
    int(table.has_image[items].sum()),
  )
  return float(flops), int(lengths.sum())


def _find_timed(side: Any, count: int) -> list[int]:
  """Steps that compile nothing: whose shape came before, but not the first two."""
  seen: set[int] = set()
  timed = []
  for number in range(count):
    shape = int(side.laid.which[number]) if hasattr(side, "laid") else 0
    timed += [number] if shape in seen and number > 1 else []
    seen.add(shape)
  return timed or [count - 1]


def _count_executed(side: Any) -> dict[int, float]:
  """FLOPs of the step's products, by its shape."""
  from mllm_selector_jax.planning import counting

  found = {}
  for which in range(len(side.laid.shapes)):
    number = int(np.flatnonzero(side.laid.which == which)[0])
    found[which] = side.trace(number, counting.count_flops)
  return found
