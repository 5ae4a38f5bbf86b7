"""The scoring benchmark's tables."""

import dataclasses
import os
from typing import Any

import numpy as np

from benchmarks.scoring_flops import Work, count_flops, count_parts
from mllm_selector_jax.models.config import MllmConfig

TITLES = {
  "B0": "B0: random order, padded, full logits",
  "B1": "B1: by length, token budget, head on supervised",
  "B2": "B2: B1 under torch.compile",
  "B3": "B3: rows packed, attention of variable length",
  "B4": "B4: B3 under torch.compile",
  "unshared": "ours, nothing shared",
  "shared": "ours, images shared",
}


@dataclasses.dataclass
class Result:
  """What was measured of a method.

  Attributes:
    setting: that was fastest.
    compile_seconds: what the first run took beyond the second.
    seconds: (wall, CPU) of each repeat.
    work: executed.
    fed: tokens without padding.
    losses: of each row.
    memory: peak, GB; None if not measured.
  """

  setting: Any
  compile_seconds: float
  seconds: list[tuple[float, float]]
  work: Work
  fed: int
  losses: np.ndarray
  memory: float | None

  @property
  def wall(self) -> float:
    return float(np.median([wall for wall, _ in self.seconds]))

  @property
  def cpu(self) -> float:
    return float(np.median([cpu for _, cpu in self.seconds]))


def describe(arguments: Any, config: MllmConfig, pool: Any) -> None:
  """Prints machine, model and pool."""
  import jax

  from mllm_selector_jax.planning.estimate import parameter_counts

  table, sizes = pool.table, parameter_counts(config)
  rows = int(table.has_image.sum())
  print(
    f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, load"
    f" {os.getloadavg()[0]:.1f}; {arguments.size}: decoder"
    f" {sizes['decoder'] / 1e6:.1f} M, vision {sizes['vision'] / 1e6:.2f} M,"
    f" {config.patches} image tokens, {config.dtype}\n"
    f"{len(table.tokens):,} rows, {table.tokens.mean():.1f} tokens (longest"
    f" {table.tokens.max()}), {table.supervised.mean():.1f} supervised, trunk"
    f" {table.prefixes.tokens.max()}; {rows / len(pool.pictures):.2f} rows an image,"
    f" {len(table.tokens) - rows} of text alone",
    flush=True,
  )


def measure_matmuls(arguments: Any) -> dict[str, float]:
  """FLOP/s of a square matmul, by jax and by torch."""
  import time

  from mllm_selector_jax.planning.estimate import measure_matmul

  rates = {"jax": measure_matmul(arguments.dtype, arguments.matmul)}
  if "B" in arguments.methods:  # a rival
    import jax
    import torch

    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    dtype, side = getattr(torch, arguments.dtype), arguments.matmul
    x = torch.ones(side, side, dtype=dtype, device=device)
    found = []
    for _ in range(5):
      begun = time.perf_counter()
      (x @ x)[0, 0].item()
      found.append(time.perf_counter() - begun)
    rates["torch"] = 2 * side**3 / min(found)
  text = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items())
  print(f"matmul of {arguments.matmul}: {text}", flush=True)
  return rates


def format_report(
  config: MllmConfig, pool: Any, results: dict[str, Result], rates: dict[str, float]
) -> str:
  """Markdown: speeds, what was executed, gains, agreement."""
  useful, rate = int(pool.table.tokens.sum()), max(rates.values())
  rivals = [name for name in TITLES if name in results and name.startswith("B")]
  head = ["", "samples/s", "range", *(f"x {name}" for name in rivals)]
  head += ["useful tokens/s", "CPU s", "first run +s", "peak GB", "setting"]
  lines = [_row(head), "|---" * len(head) + "|"]
  for name, result in results.items():
    speeds = [len(pool.samples) / wall for wall, _ in result.seconds]
    lines.append(
      _row(
        [
          TITLES[name],
          f"{len(pool.samples) / result.wall:.1f}",
          f"{min(speeds):.1f}-{max(speeds):.1f}",
          *(f"{results[rival].wall / result.wall:.2f}" for rival in rivals),
          f"{useful / result.wall:,.0f}",
          f"{result.cpu:.2f}",
          f"{result.compile_seconds:.1f}",
          "" if result.memory is None else f"{result.memory:.2f}",
          result.setting,
        ]
      )
    )
  head = ["", "executed tokens", "padding", "sharing", "vision runs", "logits"]
  head += ["GFLOP", "of which attention", "vision", "GFLOP/s", "of matmul"]
  lines += ["", _row(head), "|---" * len(head) + "|"]
  for name, result in results.items():
    work, parts = result.work, count_parts(config, result.work)
    total = sum(parts.values())
    lines.append(
      _row(
        [
          TITLES[name],
          f"{work.tokens:,}",
          f"{work.tokens / result.fed:.3f}",
          f"{useful / result.fed:.3f}",
          f"{work.images:,}",
          f"{work.heads:,}",
          f"{total / 1e9:,.1f}",
          f"{parts['attention'] / total:.1%}",
          f"{parts['vision'] / total:.1%}",
          f"{total / result.wall / 1e9:.1f}",
          f"{total / result.wall / rate:.1%}",
        ]
      )
    )
  lines += ["", *_gains(config, results), "", *_agreement(results)]
  return "\n".join(lines)


def _row(cells: list[Any]) -> str:
  return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _gains(config: MllmConfig, results: dict[str, Result]) -> list[str]:
  lines = []
  best = [results[name] for name in ("B1", "B2", "B3", "B4") if name in results]
  if "unshared" in results and "shared" in results:
    alone, shared = results["unshared"], results["shared"]
    predicted = count_flops(config, alone.work) / count_flops(config, shared.work)
    walls, cpu = alone.wall / shared.wall, alone.cpu / shared.cpu
    lines.append(
      f"Sharing: predicted by FLOPs {predicted:.3f}, measured {walls:.3f}"
      f" ({walls / predicted:.0%}); by CPU time {cpu:.3f} ({cpu / predicted:.0%})."
    )
  for name in ("unshared", "shared"):
    if best and name in results:
      result = results[name]
      wall = min(rival.wall for rival in best) / result.wall
      cpu = min(rival.cpu for rival in best) / result.cpu
      lines.append(
        f"{TITLES[name]}: {wall:.2f} x the best of B1 to B4; by CPU time {cpu:.2f}."
      )
  return lines


def _agreement(results: dict[str, Result]) -> list[str]:
  """Against B1's losses, which are torch's."""
  if "B1" not in results:
    return []
  head = ["losses against B1's", "max relative error", "p99", "Spearman", "top 20 %"]
  lines = [_row(head), "|---" * len(head) + "|"]
  wanted = results["B1"].losses
  for name, result in results.items():
    if name == "B1":
      continue
    error = np.abs(result.losses / wanted - 1)
    lines.append(
      _row(
        [
          TITLES[name],
          f"{error.max():.1e}",
          f"{np.quantile(error, 0.99):.1e}",
          f"{spearman(result.losses, wanted):.6f}",
          f"{overlap(result.losses, wanted):.4f}",
        ]
      )
    )
  return lines


def spearman(left: np.ndarray, right: np.ndarray) -> float:
  """Rank correlation."""
  ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (left, right)]
  return float(np.corrcoef(*ranks)[0, 1])


def overlap(left: np.ndarray, right: np.ndarray, share: float = 0.2) -> float:
  """How many of the highest of one are among the highest of the other."""
  count = max(1, round(share * len(left)))
  tops = [set(np.argsort(-values)[:count].tolist()) for values in (left, right)]
  return len(tops[0] & tops[1]) / count
