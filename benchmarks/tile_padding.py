"""How much of the executed tiles and tokens is padding, in pools of many sizes.

    JAX_PLATFORMS=cpu python -m benchmarks.tile_padding [--rows=100000] [--shards=1,8]

Draws a pool of images of many sizes (benchmarks/tiled_pools.py states what is
assumed), lays them out in the forms of the families of tiles and of native resolution,
and plans scoring and training as the package does; nothing is read or computed.
Rows that are longer than a packed row are left out, as the check does it; the first
line of each part says how many. Told are executed tiles and tokens, which a batch's
static shape states, over those that samples need; "shared" computes common beginnings
once and therefore needs fewer.
"""

import argparse
import types

from benchmarks import tiled_pools
from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.packing import assembly, batch_shapes, row_packing
from mllm_selector_jax.planning import topology
from mllm_selector_jax.scoring import engine
from mllm_selector_jax.types import Tiling


def integers(text: str) -> list[int]:
  return [int(number) for number in text.split(",")]


def describe_config(form: BaseImages) -> types.SimpleNamespace:
  """What `engine.lay_out` reads of a model's config."""
  options = form.options
  tiling = Tiling(options.grid**2, options.size, native=options.form == "native")
  return types.SimpleNamespace(tiling=tiling)


def plan_scoring(table, rows, config, mesh, length: int, batch: int, share: bool):
  """Counts of the main pass."""
  options = engine.ScoreOptions(length, batch, share=share)
  layout = engine.lay_out(config, table, rows, options, mesh, described=True)
  return layout.describe(table, engine.MAIN)


def plan_training(table, rows, config, shards: int, length: int, batch: int):
  """Counts of one epoch of batches of so many samples."""
  lengths = table.tokens[rows]
  steps = row_packing.training_steps(len(rows), lengths, batch, 1, 0, length)
  steps = [[rows[items].tolist() for items in step] for step in steps]
  laid = batch_shapes.lay_out(
    steps,
    assembly.Counts.of_pool(table),
    table.tokens,
    length,
    config.tiling,
    shards,
  )
  shapes = [laid.shapes[which] for which in laid.which]
  return {
    "tokens": int(lengths.sum()),
    "executed_tokens": sum(shape.rows * shape.length for shape in shapes),
    "tiles": int(table.tiles[rows].sum()),
    "executed_tiles": sum(shape.shards * shape.tiles for shape in shapes),
  }


def format_counts(counts: dict[str, int]) -> str:
  tiles = counts["executed_tiles"] / counts["tiles"]
  tokens = counts["executed_tokens"] / counts["tokens"]
  return f"tiles {tiles:.3f} ({1 - 1 / tiles:.1%} padding), tokens {tokens:.3f}"


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--rows", type=int, default=100_000)
  parser.add_argument("--forms", default=",".join(tiled_pools.FORMS))
  parser.add_argument("--row_lengths", default="4096,8192")
  parser.add_argument("--batch_rows", default="8,16,32", help="of scoring")
  parser.add_argument("--batches", default="128", help="samples of a training step")
  parser.add_argument("--shards", default="1,8")
  arguments = parser.parse_args()
  shards = integers(arguments.shards)
  from mllm_selector_jax import sharding

  devices = topology.describe(f"h200-{max(shards)}").devices
  drawn = tiled_pools.draw_pool(arguments.rows)
  for name in arguments.forms.split(","):
    form = tiled_pools.FORMS[name]
    table, config = tiled_pools.describe(drawn, form), describe_config(form)
    for length in integers(arguments.row_lengths):
      rows = tiled_pools.keep_rows(table, length)
      kept, tokens = table.tiles[rows], table.tokens[rows]
      print(
        f"{name}, rows of {length}: {len(table.tokens) - len(rows):,} of"
        f" {len(table.tokens):,} rows are too long; the others have"
        f" {kept.mean():.2f} tiles (at most {kept.max()}) and {tokens.mean():.0f}"
        " tokens in the mean",
        flush=True,
      )
      for count in shards:
        mesh = sharding.make_mesh(devices=devices[:count])
        for batch in integers(arguments.batch_rows):
          if batch < count:
            continue
          alone, shared = (
            plan_scoring(table, rows, config, mesh, length, batch, share)
            for share in (False, True)
          )
          saved = ", ".join(
            f"{alone[f'executed_{name}'] / shared[f'executed_{name}']:.3f} x {name}"
            for name in ("tiles", "tokens")
          )
          print(
            f"  scoring, {batch:3} packed rows over {count} shards:"
            f" {format_counts(alone)}; shared {format_counts(shared)};"
            f" unshared executes {saved}",
            flush=True,
          )
        for batch in integers(arguments.batches):
          counts = plan_training(table, rows, config, count, length, batch)
          print(
            f"  training, {batch} samples over {count} shards: {format_counts(counts)}",
            flush=True,
          )


if __name__ == "__main__":
  main()
