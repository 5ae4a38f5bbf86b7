"""Scoring beside torch, a case a size and a method: the command `scoring`.

What is measured is benchmarks/scoring.py's: the same weights, drawn from one seed, the
same rows, and each method at the fastest of its settings. A case has the device to
itself, so methods do not take turns; a figure is the median of `repeats`. Losses are
kept with the figures, and the report compares them.
"""

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator_ledger import Case

# What says most comes first.
METHODS = ("shared", "unshared", "B1", "B3", "B2", "B0", "B4")
COMMON = {"side": 336, "patch": 14, "dtype": "bfloat16", "matmul": 8192, "repeats": 3}
# Flags of benchmarks/scoring.py for each of its sizes, and the seconds of a case.
SIZES: dict[str, tuple[dict[str, Any], float]] = {
  "tiny": (
    {
      "samples": 16, "side": 32, "row_lengths": "64", "batch_tokens": "256",
      "batch_sizes": "4", "threads": "0", "matmul": 256, "repeats": 2,
    },
    10.0,
  ),
  "small": (
    {
      "samples": 400, "row_lengths": "256", "batch_tokens": "2048,4096",
      "batch_sizes": "1,8", "threads": "2", "matmul": 2048, "repeats": 3,
    },
    60.0,
  ),
  "1b": (
    {
      **COMMON, "samples": 1024, "row_lengths": "2048", "batch_tokens": "16384,65536",
      "batch_sizes": "1,16", "threads": "4",
    },
    150.0,
  ),
  "7b": (
    {
      **COMMON, "samples": 384, "row_lengths": "2048", "batch_tokens": "16384,32768",
      "batch_sizes": "1,8", "threads": "4",
    },
    240.0,
  ),
}  # fmt: skip


def list_cases(arguments: Any) -> list[Case]:
  return [
    Case(f"scoring/{size}/{method}", SIZES[size][0], SIZES[size][1])
    for size in arguments.sizes.split(",")
    if size in SIZES
    for method in METHODS
  ]


def measure(key: str, settings: dict[str, Any], work: Path) -> dict[str, Any]:
  """A case's figures by name."""
  del work
  from benchmarks import scoring
  from mllm_selector_jax.runs.memory import keep_freed_memory

  keep_freed_memory()
  _, size, name = key.split("/")
  words = [f"--{flag}={value}" for flag, value in settings.items()]
  arguments = scoring.read_arguments([f"--size={size}", f"--methods={name}", *words])
  config, pool, methods = scoring.make_methods(arguments, [name])
  method, held = methods[name], scoring.held_memory()
  best, compiled, tried = scoring.tune(method)
  seconds = []
  for _ in range(arguments.repeats):
    losses = method.run(best)
    seconds.append(method.seconds)
  figures = describe_pool(pool)
  figures |= measure_rates(arguments, name)
  figures |= count_speeds(config, pool, method, best, [wall for wall, _ in seconds])
  return figures | {
    "setting": str(best),
    "tried s": {str(setting): round(value, 3) for setting, value in tried.items()},
    "first run +s": compiled,
    "CPU s": statistics.median(cpu for _, cpu in seconds),
    "peak GB": scoring.read_peak(held, name.startswith("B")),
    "losses": [float(f"{loss:.9g}") for loss in losses],
  }


def describe_pool(pool: Any) -> dict[str, Any]:
  table = pool.table
  return {
    "rows": len(table.tokens),
    "tokens": int(table.tokens.sum()),
    "longest": int(table.tokens.max()),
    "supervised": int(table.supervised.sum()),
    "images": len(pool.pictures),
  }


def measure_rates(arguments: Any, name: str) -> dict[str, float | None]:
  """FLOP/s of a large product by the method's own library, and the published peak."""
  import jax

  from benchmarks import scoring_report
  from mllm_selector_jax.training import peaks

  rates = scoring_report.measure_matmuls(arguments)
  own = rates["torch" if name.startswith("B") else "jax"]
  peak = peaks.peak_flops(jax.devices()[0])
  return {"matmul TFLOP/s": own / 1e12, "published TFLOP/s": peak and peak / 1e12}


def count_needed(config: Any, pool: Any) -> float:
  """FLOPs that the rows ask for one by one, unpadded: the same for all methods."""
  from benchmarks.scoring_flops import Work, count_flops

  lengths, learned = pool.table.tokens, int(pool.table.supervised.sum())
  return count_flops(
    config,
    Work(
      tokens=int(lengths.sum()),
      pairs=float((lengths.astype(np.float64) * (lengths + 1) / 2).sum()),
      images=int(pool.table.has_image.sum()),
      heads=learned,
      last=int(lengths.sum()),
    ),
  )


def count_speeds(
  config: Any, pool: Any, method: Any, setting: Any, seconds: list[float]
) -> dict[str, float]:
  """Speeds of the median turn, by rows, by tokens and by FLOPs."""
  from benchmarks.scoring_flops import count_flops

  wall, work = statistics.median(seconds), method.work(setting)
  rows = len(pool.samples)
  return {
    "samples/s": rows / wall,
    "slowest samples/s": rows / max(seconds),
    "fastest samples/s": rows / min(seconds),
    "tokens/s": int(pool.table.tokens.sum()) / wall,
    "model TFLOP/s": count_needed(config, pool) / wall / 1e12,
    "executed TFLOP/s": count_flops(config, work) / wall / 1e12,
    "executed tokens": work.tokens,
  }
