"""plan: an estimate of time and disk before anything long starts."""

import math
import shutil
import time
from typing import Any

import jax
import jax.numpy as jnp

from mllm_selector_jax.models import huggingface, mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.selection import budget
from mllm_selector_jax.stages import base
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.stages.questions import questions_there
from mllm_selector_jax.stages.score import needs_seed
from mllm_selector_jax.stages.select import arms

EFFICIENCY = 0.3  # of the measured matmul rate, a cautious guess


def plan(run: Run) -> None:
  """Says what the long stages will cost in time and disk, from the checked pool."""
  pool = base.open_pool(run)
  config = huggingface.read_config(base.base_path(run), dtype=base.dtype(run))
  sizes = parameter_counts(config)
  rate = measure_matmul(base.dtype(run)) * EFFICIENCY
  lengths, ok = pool.tokens, pool.ok
  mean = float(lengths[ok].mean())
  rows = int(ok.sum())
  count = {
    name: budget.resolve_count(text, ok, lengths, name=name)
    for name, text in (
      ("seed.rows", run.cfg.seed.rows),
      ("select.budget", run.cfg.select.budget),
    )
  }
  forward = forward_flops(config, sizes, mean)
  lines = ["The plan (rough: FLOPs over the matmul rate measured here):"]
  total = 0.0

  def add(name: str, samples: int, passes: float, text: str):
    nonlocal total
    seconds = samples * passes * forward / rate
    total += seconds
    lines.append(f"  {name:8} {text:42} about {duration(seconds)}")

  seed, tune, kept = run.cfg.seed, run.cfg.tune, count["select.budget"]
  if needs_seed(run):
    samples = count["seed.rows"] * seed.epochs
    add("seed", samples, 3, f"{count['seed.rows']:,} rows x {seed.epochs} epochs")
  if run.cfg.score.table is None:
    add("score", rows, 1, f"{rows:,} rows, {int(lengths[ok].sum()):,} tokens")
  for arm in arms(run):
    text = f"{kept:,} rows x {tune.epochs} epochs ({arm})"
    add("tune", kept * tune.epochs, 3, text)
  if asked := questions_there(run):
    new = run.cfg.evaluate.max_new_tokens
    passes = 1 + 2 * sizes["decoder"] * new / forward  # the prompt, then tokens
    text = f"{len(asked):,} questions x {len(arms(run))} arms"
    add("evaluate", len(asked) * len(arms(run)), passes, text)
  lines.append(f"  {'in all':8} {'':42} about {duration(total)}, compilation apart")
  models = 1 + len(arms(run))
  # A model is exported once (4 bytes a parameter) and its last checkpoint has
  # the trainable parameters and Adam's two moments.
  disk = models * 4 * sum(sizes.values()) + 12 * sizes["decoder"]
  disk += rows * (4 * min(config.decoder.width, 256) + 200)
  free = shutil.disk_usage(run.workdir.path).free
  lines.append(
    f"  disk: about {disk / 1e9:.2f} GB under {run.workdir.path}, where"
    f" {free / 1e9:.1f} GB are free"
  )
  if disk > free:
    lines.append("  Warning: that is not enough; make room or give another --workdir.")
  run.say("\n".join(lines))


def parameter_counts(config: MllmConfig) -> dict[str, int]:
  """Parameters of each part of the model."""
  return {
    name: sum(math.prod(x.shape) for x in jax.tree.leaves(part))
    for name, part in mllm.abstract(config).items()
  }


def forward_flops(config: MllmConfig, sizes: dict[str, int], tokens: float) -> float:
  """FLOPs of one sample's forward pass: two a parameter a token, and attention."""
  decoder = config.decoder
  dense = sizes["decoder"] - decoder.vocab * decoder.width
  attention = 2 * decoder.layers * decoder.width * tokens**2
  vision = 2 * (sizes["vision"] + sizes["projector"]) * config.patches
  return 2 * dense * tokens + attention + vision


def measure_matmul(dtype: str, side: int = 1024) -> float:
  """FLOP/s of a square matmul on all devices of this process."""
  x = jnp.ones((side, side), dtype)
  fn = jax.jit(lambda a: a @ a)
  fn(x).block_until_ready()
  best = math.inf
  for _ in range(3):
    start = time.perf_counter()
    fn(x).block_until_ready()
    best = min(best, time.perf_counter() - start)
  devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
  return 2 * side**3 / best * devices


def duration(seconds: Any) -> str:
  """Seconds as people say them."""
  if seconds < 90:
    return f"{max(seconds, 1):.0f} s"
  if seconds < 5400:
    return f"{seconds / 60:.0f} min"
  return f"{seconds / 3600:.1f} h"
