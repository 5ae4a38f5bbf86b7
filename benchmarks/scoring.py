"""Scoring beside transformers' torch LLaVA: same weights, same samples, one run.

    python -m benchmarks.scoring --pool=EASY/pool.json --images=EASY/images
    python -m benchmarks.scoring                    # lengths like LLaVA's 665K
    python -m benchmarks.scoring --size=7b --side=336 --patch=14 --dtype=bfloat16 \
      --samples=512 --row_lengths=2048 --batch_tokens=16384,32768 --matmul=8192

B0 to B2 are in benchmarks/scoring_torch.py, B3 and B4, for which `--methods` must ask,
in scoring_packed.py; "ours" is `engine.run_pass` whole: plan, batches, all signals and
embeddings, parts on disk. Each side starts from tokens and pixels in memory (torch's
already normalised), has all cores, and is tuned over its batch sizes by three runs each
before the clock starts. Compilation is told apart. Methods then take turns,
`--repeats` times; medians are reported. The gain that is predicted for sharing is the
ratio of the FLOPs that the two plans execute. CPU time is of all threads: on a machine
with other work it says more.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax.runs.memory import keep_freed_memory

METHODS = ("B0", "B1", "B2", "unshared", "shared")
PACKED = ("B3", "B4")  # too, if they are named
COMPILED = ("B2", "B4")


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
  """From these words; None: from the command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--pool", help="LLaVA JSON; none draws a pool like 665K")
  parser.add_argument("--images", help="its image folder")
  parser.add_argument("--samples", type=int, default=1000)
  parser.add_argument("--size", default="small", help="of scoring_models.SIZES")
  parser.add_argument("--side", type=int, default=64, help="pixels of an image")
  parser.add_argument("--patch", type=int, default=8, help="pixels of a patch")
  parser.add_argument("--dtype", default="float32")
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--threads", default="0,2", help="that read ahead (ours)")
  parser.add_argument(
    "--row_lengths", default="96,128,256,512", help="tuned over (ours)"
  )
  parser.add_argument(
    "--batch_tokens", default="2048,4096", help="tuned over (all but B0)"
  )
  parser.add_argument("--batch_sizes", default="4,8,16", help="tuned over (B0)")
  parser.add_argument("--methods", default=",".join(METHODS))
  parser.add_argument("--matmul", type=int, default=2048, help="side of the anchor")
  parser.add_argument("--check", type=int, default=2000, help="rows compared")
  parser.add_argument("--loss_alone", action="store_true", help="no other signals")
  parser.add_argument("--memory", action="store_true", help="peaks, by processes")
  parser.add_argument("--only", help=argparse.SUPPRESS)  # method,setting
  return parser.parse_args(words)


def integers(text: str) -> list[int]:
  return [int(number) for number in text.split(",")]


class Ours:
  """`engine.run_pass` over the pool; a setting is (row length, rows, threads)."""

  def __init__(self, arguments, config, params, pool, share: bool):
    from mllm_selector_jax import sharding
    from mllm_selector_jax.scoring import passes

    self.config, self.params, self.pool, self.share = config, params, pool, share
    self.mesh = sharding.make_mesh()
    self.own = passes.Pass("main", whole=not arguments.loss_alone)
    longest = int(pool.table.tokens.max())
    lengths = {max(n, longest) for n in integers(arguments.row_lengths)}
    self.settings = [
      (length, max(1, tokens // length), threads)
      for length in sorted(lengths)
      for tokens in integers(arguments.batch_tokens)
      for threads in integers(arguments.threads)
    ]

  def prepare(self, setting):
    """Compiles, by running once."""
    self.run(setting)

  def run(self, setting) -> np.ndarray:
    from mllm_selector_jax.scoring import engine, score_parts

    length, rows, threads = setting
    count = len(self.pool.samples)
    options = engine.ScoreOptions(
      length, rows, part_rows=count, threads=threads, share=self.share
    )
    with tempfile.TemporaryDirectory() as folder:
      begun = time.perf_counter(), cpu_time()
      self.counts = engine.run_pass(
        self.config,
        self.params,
        self.pool,
        np.arange(count),
        options,
        self.mesh,
        Path(folder),
        self.own,
      )
      self.seconds = time.perf_counter() - begun[0], cpu_time() - begun[1]
      out = np.zeros(count)
      for table, _ in score_parts.read_parts(Path(folder), self.counts["parts"]):
        loss = table["loss"].to_numpy() / table["supervised"].to_numpy()
        out[table["row"].to_numpy()] = loss
    return out

  def work(self, setting):
    from benchmarks.scoring_flops import Work
    from mllm_selector_jax.data.packing import row_packing
    from mllm_selector_jax.models import stack
    from mllm_selector_jax.models.attention import cut_blocks

    counts, tokens = self.counts, self.counts["executed_tokens"]
    few = stack.is_unrolled(self.config.decoder.layers)
    learned, answers = counts["executed_supervised"], counts["executed_answers"]
    length = row_packing.row_length_for(self.pool.table.tokens, setting[0])
    return Work(
      tokens=tokens,
      # At most: of rows longer than attention.DENSE, only blocks that are seen.
      pairs=tokens // length * sum((b - a) * b for a, b in cut_blocks(length)),
      images=counts["executed_tiles"],
      heads=learned,
      last=learned + answers if few else tokens,
    )

  def fed(self) -> int:
    """Tokens without padding."""
    return self.counts["tokens"]


class Torch:
  """A rival; a setting is its batch size (B0) or budget of padded tokens."""

  def __init__(self, arguments, rival, name: str):
    self.rival, self.name = rival, name
    sizes = arguments.batch_sizes if name == "B0" else arguments.batch_tokens
    self.settings = integers(sizes)
    self.body = None

  def prepare(self, setting):
    from benchmarks import scoring_packed, scoring_torch

    if self.name in PACKED:
      scoring_packed.use_packed(self.rival)
    if self.name in COMPILED and not self.body:
      self.body = scoring_torch.compile_body(self.rival)
    self.run(setting)

  def _cut(self, setting):
    from benchmarks import scoring_packed, scoring_torch

    lengths = self.rival.lengths
    if self.name == "B0":
      return scoring_torch.cut_randomly(lengths, setting)
    if self.name in PACKED:
      return scoring_packed.cut_packed(lengths, setting)
    return scoring_torch.cut_by_length(lengths, setting)

  def run(self, setting) -> np.ndarray:
    from benchmarks import scoring_packed, scoring_torch

    begun = time.perf_counter(), cpu_time()
    batches = self._cut(setting)
    if self.name == "B0":
      out = scoring_torch.run_plain(self.rival, batches)
    elif self.name in PACKED:
      body = self.body or self.rival.model.model
      out = scoring_packed.run_packed(self.rival, batches, body)
    else:
      out = scoring_torch.run_sorted(self.rival, batches, self.body)
    self.seconds = time.perf_counter() - begun[0], cpu_time() - begun[1]
    return out

  def work(self, setting):
    from benchmarks import scoring_packed, scoring_torch

    if self.name in PACKED:
      return scoring_packed.count_packed(self.rival)
    return scoring_torch.count_work(
      self.rival, self._cut(setting), plain=self.name == "B0"
    )

  def fed(self) -> int:
    return int(self.rival.lengths.sum())


def cpu_time() -> float:
  """Seconds of all threads of this process."""
  usage = resource.getrusage(resource.RUSAGE_SELF)
  return usage.ru_utime + usage.ru_stime


def make_methods(arguments, names: list[str]) -> tuple[Any, Any, dict[str, Any]]:
  """Config, pool, and the methods by name, with nothing compiled yet."""
  from benchmarks import scoring_models, scoring_pools

  hf_config = scoring_models.make_hf_config(
    arguments.size, arguments.side, arguments.patch
  )
  config = scoring_models.make_config(hf_config, arguments.dtype)
  if arguments.pool:
    pool = scoring_pools.make_easy_vqa(
      arguments.pool, arguments.images, arguments.samples, config
    )
  else:
    pool = scoring_pools.make_like_665k(arguments.samples, config)
  params = scoring_models.draw_params(config)
  methods: dict[str, Any] = {}
  if any(name.startswith("B") for name in names):
    from benchmarks import scoring_torch

    model = scoring_models.make_torch_model(hf_config, config, params)
    rival = scoring_torch.make_rival(model, config, pool)
  for name in names:
    if name.startswith("B"):
      methods[name] = Torch(arguments, rival, name)
    else:
      methods[name] = Ours(arguments, config, params, pool, name == "shared")
  return config, pool, methods


def tune(method: Any) -> tuple[Any, float, dict[Any, float]]:
  """The fastest setting, seconds of the first preparation, and each one's seconds.

  Each setting counts by its best of three turns, since a machine that others use too
  has slow moments.
  """
  found, first = {}, 0.0
  for setting in method.settings:
    begun = time.perf_counter()
    method.prepare(setting)
    first = first or time.perf_counter() - begun
  for _ in range(3):
    for setting in method.settings:
      method.run(setting)
      found[setting] = min(method.seconds[0], found.get(setting, math.inf))
  best = min(found, key=found.get)
  return best, first - found[method.settings[0]], found


def measure_memory(name: str, setting: Any) -> float:
  """GB that a method's run takes beyond pool and weights, in a process of its own."""
  flags = [flag for flag in sys.argv[1:] if flag != "--memory"]
  command = [sys.executable, "-m", "benchmarks.scoring", *flags]
  only = json.dumps([name, setting])
  done = subprocess.run(
    [*command, f"--only={only}"], check=True, capture_output=True, text=True
  )
  return float(done.stdout.split()[-1])


def print_memory(arguments: argparse.Namespace) -> None:
  """What `measure_memory` reads: run in the process of one method."""
  name, setting = json.loads(arguments.only)
  _, _, methods = make_methods(arguments, [name])
  held = held_memory()
  methods[name].prepare(tuple(setting) if isinstance(setting, list) else setting)
  print(read_peak(held, name.startswith("B")))


def held_memory() -> int:
  """Bytes of host memory that this process holds."""
  pages = Path("/proc/self/statm").read_text().split()[1]
  return int(pages) * resource.getpagesize()


def read_peak(held: int, by_torch: bool) -> float:
  """The peak so far, GB: of the device, by torch or jax; without one beyond `held`."""
  import jax

  if jax.default_backend() == "cpu":
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held
  elif by_torch:
    import torch

    peak = torch.cuda.max_memory_allocated()
  else:
    peak = jax.devices()[0].memory_stats()["peak_bytes_in_use"]
  return peak / 1e9


def main() -> None:
  keep_freed_memory()
  arguments = read_arguments()
  if arguments.only:
    print_memory(arguments)
    return
  from benchmarks import scoring_report

  asked = arguments.methods.split(",")
  names = [name for name in (*METHODS, *PACKED) if name in asked]
  config, pool, methods = make_methods(arguments, names)
  scoring_report.describe(arguments, config, pool)
  rates = scoring_report.measure_matmuls(arguments)
  settings, compile_seconds, losses, notes = {}, {}, {}, []
  for name in names:
    try:
      best, seconds, found = tune(methods[name])
    except Exception as error:  # torch.compile may have no compiler here
      if name not in COMPILED:
        raise
      notes.append(f"{name} failed: {type(error).__name__}: {str(error)[:300]}")
      continue
    settings[name], compile_seconds[name] = best, seconds
    tried = ", ".join(f"{key}: {value:.2f} s" for key, value in found.items())
    print(f"tuning {name}: {tried}", flush=True)
  seconds = {name: [] for name in settings}
  for _ in range(arguments.repeats):
    for name in settings:
      losses[name] = methods[name].run(settings[name])
      seconds[name].append(methods[name].seconds)
  memory = {}
  if arguments.memory:
    memory = {name: measure_memory(name, settings[name]) for name in settings}
  results = {
    name: scoring_report.Result(
      settings[name],
      compile_seconds[name],
      seconds[name],
      methods[name].work(settings[name]),
      methods[name].fed(),
      losses[name],
      memory.get(name),
    )
    for name in settings
  }
  print(scoring_report.format_report(config, pool, results, rates))
  print("\n".join(notes))


if __name__ == "__main__":
  main()
