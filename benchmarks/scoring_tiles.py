"""Scoring of images of many sizes beside transformers' torch models, in one run.

    python -m benchmarks.scoring_tiles                      # minutes, on idle cores
    python -m benchmarks.scoring_tiles --samples=24 --size=tiny --side=64 --repeats=1

For LLaVA-NeXT's, InternVL's and Qwen-VL's form a small pool is drawn (tiled_pools.py,
with tiles, images and texts smaller by the same factors) and scored by the same random
weights in three ways, which take turns `--repeats` times:

- torch: transformers' own class of the family, float32. Rows are sorted by length and
  batched under a budget of padded tokens; the head is applied to supervised positions
  only. Tiles are normalised before the clock starts.
- alone: `engine.run_pass` whole, with all signals, and nothing shared.
- shared: the same, with shared beginnings computed once.

Ours runs on one CPU device a core (`--devices`; in a run, JAX_NUM_CPU_DEVICES gives as
many); torch uses all cores by threads. Each way is tuned over its batch sizes before.
Told are the medians of samples a second, the median ratios to torch in the same turn,
the executed tokens and tiles, and how far the losses are apart; more than 1e-4 relative
is an error.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mllm_selector_jax.runs.memory import keep_freed_memory

TOLERANCE = 1e-4
# What transformers' models call the sizes of images, where they ask for them.
SIZES_OF = {
  "llava_next": "image_sizes",
  "qwen2_5_vl": "image_grid_thw",
  "qwen3_vl": "image_grid_thw",
}


def read_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--forms", default="llava_next,internvl")
  parser.add_argument("--samples", type=int, default=160)
  parser.add_argument("--size", default="small", help="of tiled_models.SIZES")
  parser.add_argument("--side", type=int, default=112, help="pixels; a multiple of 16")
  parser.add_argument("--questions", type=int, help="that share each image")
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--threads", default="0", help="that read ahead (ours)")
  parser.add_argument("--devices", type=int, default=os.cpu_count(), help="(ours)")
  parser.add_argument("--row_lengths", default="1", help="tuned over (ours)")
  parser.add_argument("--batch_tokens", default="1024,2048,4096", help="tuned over")
  parser.add_argument("--loss_alone", action="store_true", help="no other signals")
  return parser.parse_args()


def make_rival(folder: Path, name: str, config: Any, pool: Any) -> Any:
  """Transformers' model of the family, with tensors of all rows."""
  import torch
  import transformers

  from benchmarks import scoring_torch

  model = transformers.AutoModelForImageTextToText.from_pretrained(
    folder, dtype=torch.float32, attn_implementation="sdpa"
  ).eval()
  mean, std = torch.tensor(config.image_mean), torch.tensor(config.image_std)
  native = config.vision.native

  def normalise(image):
    tiles = torch.from_numpy(pool.tiles[image])
    scaled = (tiles.float() / 255 - mean) / std
    if not native:
      return scaled.permute(0, 3, 1, 2).contiguous()
    # Patches of merged squares row by row: channel, frame, row and column of each.
    side, merge = config.vision.patch_size, config.vision.grid
    scaled = scaled[torch.from_numpy(layouts[image].features).long()]
    cut = scaled.reshape(-1, merge, side, merge, side, 3).permute(0, 1, 3, 5, 2, 4)
    frames = cut.unsqueeze(4).expand(-1, -1, -1, -1, config.vision.frames, -1, -1)
    return frames.reshape(len(cut) * merge**2, -1).contiguous()

  layouts = {
    name: image.layout
    for names, sample in zip(pool.names, pool.samples, strict=True)
    for name, image in zip(names, sample.images, strict=True)
  }
  tiles = {image: normalise(image) for image in pool.tiles}

  def measure(image):
    if not native:
      return torch.tensor(pool.sizes[image].tolist()[::-1])
    return torch.tensor([1, *(config.vision.grid * n for n in layouts[image].grid)])

  class Rival(scoring_torch.Rival):
    def collate(self, batch):
      _, ids, targets, _ = super().collate(batch)
      images = [image for row in batch for image in pool.names[row]]
      pixels = None
      if images:
        sizes = torch.stack([measure(image) for image in images])
        pixels = torch.cat([tiles[image] for image in images]), sizes
      return None, ids, targets, pixels

    def use_all_layers(self, wanted):
      if name == "llava_next":  # the others project what leaves the last layer
        super().use_all_layers(wanted)

  rows = [
    (torch.from_numpy(sample.tokens).long(), torch.from_numpy(sample.supervised))
    for sample in pool.samples
  ]
  return Rival(model, config, rows, [None] * len(rows))


class Theirs:
  """torch; a setting is the budget of padded tokens."""

  def __init__(self, arguments: argparse.Namespace, rival: Any, name: str):
    from benchmarks.scoring import integers

    self.rival, self.name = rival, name
    self.settings = integers(arguments.batch_tokens)

  def _run_body(self, input_ids, pixel_values, use_cache):
    given = {}
    if self.name.startswith("qwen"):
      given["mm_token_type_ids"] = (input_ids == self.rival.config.image_token).int()
    if pixel_values is not None:
      given["pixel_values"] = pixel_values[0]
      if name := SIZES_OF.get(self.name):
        given[name] = pixel_values[1]
    return self.rival.model.model(input_ids=input_ids, use_cache=use_cache, **given)

  def prepare(self, setting: int) -> None:
    self.run(setting)

  def run(self, setting: int) -> np.ndarray:
    import time

    from benchmarks import scoring_torch
    from benchmarks.scoring import cpu_time

    begun = time.perf_counter(), cpu_time()
    batches = scoring_torch.cut_by_length(self.rival.lengths, setting)
    out = scoring_torch.run_sorted(self.rival, batches, self._run_body)
    self.seconds = time.perf_counter() - begun[0], cpu_time() - begun[1]
    lengths = self.rival.lengths
    self.counts = {
      "executed_tokens": sum(int(lengths[b].max()) * len(b) for b in batches)
    }
    return out


def tune(method: Any) -> Any:
  """The fastest setting by one run each, after one that compiles."""
  found = {}
  for setting in method.settings:
    method.prepare(setting)
    method.run(setting)
    found[setting] = method.seconds[0]
  return min(found, key=found.get)


def compare(arguments: argparse.Namespace, name: str, folder: Path) -> None:
  """Measures one form and prints its table."""
  from benchmarks import scoring, tiled_models

  form, factor, tokens = tiled_models.scale_form(name, arguments.side)
  config, params, out = tiled_models.make_model(name, arguments.size, form, folder)
  pool = tiled_models.make_pool(
    arguments.samples, form, factor, tokens, arguments.questions
  )
  table = pool.table
  print(
    f"{name}, {arguments.size}: {len(table.tokens)} rows, {table.tokens.mean():.0f}"
    f" tokens (longest {table.tokens.max()}) and {table.tiles.mean():.2f} tiles in the"
    f" mean, {table.supervised.mean():.1f} supervised; {len(pool.tiles)} images;"
    f" load {os.getloadavg()[0]:.1f}",
    flush=True,
  )
  methods = {
    "torch": Theirs(arguments, make_rival(out, name, config, pool), name),
    "alone": scoring.Ours(arguments, config, params, pool, False),
    "shared": scoring.Ours(arguments, config, params, pool, True),
  }
  settings = {title: tune(method) for title, method in methods.items()}
  losses: dict[str, np.ndarray] = {}
  told: dict[str, list] = {title: [] for title in methods}
  for turn in range(arguments.repeats):
    for title in sorted(methods, reverse=bool(turn % 2)):
      losses[title] = methods[title].run(settings[title])
      told[title].append(methods[title].seconds)
  times = {title: np.array(lines) for title, lines in told.items()}
  useful = int(table.tokens.sum())
  for title, method in methods.items():
    wall, cpu = np.median(times["torch"] / times[title], 0)
    apart = np.abs(losses[title] / losses["torch"] - 1).max()
    rate = len(table.tokens) / np.median(times[title][:, 0])
    executed = method.counts["executed_tokens"]
    line = (
      f"  {title:6} {rate:7.2f} samples/s, {wall:.2f} x torch by wall time,"
      f" {cpu:.2f} x by CPU time; executed tokens {executed / useful:.3f} of the rows'"
    )
    if title != "torch":
      tiles = method.counts["executed_tiles"] / int(table.tiles.sum())
      line += f", tiles {tiles:.3f}; losses apart by {apart:.1e} at most"
    print(f"{line}; setting {settings[title]}", flush=True)
    assert apart <= TOLERANCE, f"{title}: losses are apart by {apart:.1e}"


def main() -> None:
  keep_freed_memory()
  arguments = read_arguments()
  jax.config.update("jax_num_cpu_devices", arguments.devices)
  for name in arguments.forms.split(","):
    with tempfile.TemporaryDirectory() as folder:
      compare(arguments, name, Path(folder))


if __name__ == "__main__":
  main()
