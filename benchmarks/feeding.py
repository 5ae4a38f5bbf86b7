"""The two halves of scoring, each alone: reading batches, and running the step.

    python -m benchmarks.feeding --pool=EASY/pool.json --images=EASY/images
    python -m benchmarks.feeding --rows=1000000

The first reads a checked pool as scoring does (records from the file, tokens, decoded
images, packed batches; read ahead on threads) without a model, then runs one batch's
step over and over. The second draws lengths like LLaVA-665K's for a million rows,
plans and lays out the pass, and assembles all its batches, while it watches the memory
that is resident.
"""

import argparse
import pathlib
import resource
import tempfile
import time
import types

import jax
import numpy as np

from benchmarks import scoring_models
from benchmarks.pool_columns import describe_drawn, place_image
from benchmarks.pool_like_665k import draw_pool
from mllm_selector_jax import sharding
from mllm_selector_jax.data.images.image_folders import ImageFolders
from mllm_selector_jax.data.packing import loader
from mllm_selector_jax.data.packing.assembly import Example
from mllm_selector_jax.data.pool import pool_check, pool_table
from mllm_selector_jax.data.tokens import conversation
from mllm_selector_jax.demo import make_base
from mllm_selector_jax.scoring import engine, passes
from mllm_selector_jax.scoring.score_step import make_score_step
from mllm_selector_jax.types import ImageOptions, Sample
from tests.fixed_images import fixed_images

TOKEN = scoring_models.IMAGE_TOKEN


def resident() -> float:
  """GB of this process that are in memory now."""
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  return pages * resource.getpagesize() / 1e9


def make_config(arguments: argparse.Namespace):
  hf_config = scoring_models.make_hf_config("small", arguments.side, arguments.patch)
  return scoring_models.make_config(hf_config, "float32")


def count_samples(batch_and_owners) -> int:
  _, owners = batch_and_owners
  return len(np.unique(owners.item[owners.item >= 0]))


def measure_halves(arguments: argparse.Namespace) -> None:
  """Samples a second of the input alone and of the step alone."""
  config = make_config(arguments)
  options = ImageOptions(config.vision.image_size, config.image_mean, config.image_std)
  images = fixed_images(TOKEN, config.patches, options)
  encoder = conversation.make_encoder(
    "vicuna_v1", make_base.make_tokenizer(), images, 2048, ""
  )
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / "pool.parquet"
    pool_check.check_pool([arguments.pool], arguments.images, encoder, 64_000_000, out)
    pool = pool_table.read_table(out)

    def make_batches(shapes):
      cache = loader.Cache(1 << 30)  # empty: every image is decoded once
      folders = ImageFolders.of(arguments.images)
      reader = loader.Reader(pool, encoder, folders, 64_000_000, cache)
      return loader.MakeStep(passes.PassReader(reader, passes.MAIN), shapes)

    rows = np.flatnonzero(pool.ok)[: arguments.samples]
    for share in (False, True):
      score = engine.ScoreOptions(256, 8, share=share)
      layout = engine.lay_out(config, pool, rows, score, sharding.make_mesh())
      steps = layout.steps(layout.parts)
      for threads in (0, 2):
        make = make_batches(layout.own_shapes)
        begun = time.perf_counter(), time.process_time()
        for _ in loader.read_batches(steps, make, threads):
          pass
        wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
        print(
          f"input, share={share}, {threads} threads: {len(rows) / wall:,.0f} samples/s,"
          f" {len(rows) / cpu:,.0f} a second of CPU",
          flush=True,
        )
      batch = next(iter(loader.read_batches(steps, make, 0)))
      params = scoring_models.draw_params(config)
      step = make_score_step(config)
      jax.block_until_ready(step(params, batch[0]))
      seconds = []
      for _ in range(arguments.repeats):
        begun = time.perf_counter()
        jax.block_until_ready(step(params, batch[0]))
        seconds.append(time.perf_counter() - begun)
      rate = count_samples(batch) / np.median(seconds)
      print(f"step, share={share}: {rate:,.0f} samples/s", flush=True)


class Drawn:
  """A reader of rows that are made as they are asked for."""

  encoder = types.SimpleNamespace(image_token=TOKEN)

  def __init__(self, drawn, config):
    self.drawn, self.config = drawn, config
    self.table = describe_drawn(drawn, config.patches)
    self.table.turns = np.ones(len(drawn.lengths), np.int32)

  def read(self, row: int) -> Example:
    drawn, side = self.drawn, self.config.vision.image_size
    tokens = np.full(drawn.lengths[row], 7, np.int32)
    trunk, has_image = int(drawn.trunks[row]), bool(drawn.images[row])
    if has_image:
      tokens[trunk - self.config.patches : trunk] = TOKEN
    learned = np.arange(len(tokens)) >= len(tokens) - drawn.supervised[row]
    turns = np.where(learned, 0, -1).astype(np.int32)
    sample = Sample(tokens, learned, turns, ~learned, False)
    tiles = (np.zeros((1, side, side, 3), np.uint8),) if has_image else ()
    return place_image(sample, TOKEN, self.config.patches), tiles


def watch_memory(arguments: argparse.Namespace) -> None:
  """Resident memory while batches of a very large pool are read."""
  arguments.side, arguments.patch = 336, 14
  config = make_config(arguments)
  pool = Drawn(draw_pool(arguments.rows), config)
  print(f"{arguments.rows:,} rows drawn: {resident():.2f} GB", flush=True)
  begun = time.perf_counter()
  rows = np.arange(arguments.rows)
  options = engine.ScoreOptions(4096, 16)
  layout = engine.lay_out(config, pool.table, rows, options, sharding.make_mesh())
  print(
    f"planned in {time.perf_counter() - begun:.1f} s: {len(layout.plan):,} packed rows,"
    f" {sum(part.steps for part in layout.parts):,} steps, {resident():.2f} GB",
    flush=True,
  )
  make = loader.MakeStep(passes.PassReader(pool, passes.MAIN), layout.own_shapes)
  steps, samples = layout.steps(layout.parts), 0
  begun, tenth = time.perf_counter(), len(steps) // 10
  for number, batch in enumerate(loader.read_batches(steps, make, 2), 1):
    samples += count_samples(batch)
    if number % tenth == 0:
      rate = samples / (time.perf_counter() - begun)
      print(
        f"{samples:,} rows: {rate:,.0f} samples/s, resident {resident():.2f} GB",
        flush=True,
      )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--pool", help="LLaVA JSON")
  parser.add_argument("--images", help="its image folder")
  parser.add_argument("--samples", type=int, default=4000)
  parser.add_argument("--side", type=int, default=64)
  parser.add_argument("--patch", type=int, default=8)
  parser.add_argument("--repeats", type=int, default=11)
  parser.add_argument("--rows", type=int, default=0, help="of a drawn pool instead")
  arguments = parser.parse_args()
  watch_memory(arguments) if arguments.rows else measure_halves(arguments)


if __name__ == "__main__":
  main()
