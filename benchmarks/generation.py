"""Greedy generation beside transformers' generate: same weights, same prompts.

    python -m benchmarks.generation --pool=EASY/pool.json --images=EASY/images
    python -m benchmarks.generation                 # lengths like LLaVA's 665K
    python -m benchmarks.generation --size=7b --side=336 --patch=14 --dtype=bfloat16 \
      --samples=512 --new=16 --batches=32,64

A prompt is a row of the pool up to its first answer. Each side sorts prompts by length,
answers them in batches with a KV cache, makes the same number of new tokens of each
(no end stops early), and starts from tokens and pixels in memory (transformers'
normalised beforehand, padded on the left). Ours are the batches of
`evaluation.asking`: padded to buckets, text alone apart. Both are tuned over batch
sizes, then take turns, `--repeats` times; medians are reported, compilation apart.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.scoring import cpu_time, integers, tune
from mllm_selector_jax.runs.memory import keep_freed_memory
from mllm_selector_jax.types import Sample


def read_arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--pool", help="LLaVA JSON; none draws a pool like 665K")
  parser.add_argument("--images", help="its image folder")
  parser.add_argument("--samples", type=int, default=300)
  parser.add_argument("--size", default="small", help="of scoring_models.SIZES")
  parser.add_argument("--side", type=int, default=64, help="pixels of an image")
  parser.add_argument("--patch", type=int, default=8, help="pixels of a patch")
  parser.add_argument("--dtype", default="float32")
  parser.add_argument("--new", type=int, default=16, help="new tokens a prompt")
  parser.add_argument("--batches", default="16,64", help="sizes tuned over, both sides")
  parser.add_argument("--repeats", type=int, default=5)
  return parser.parse_args()


class Ours:
  """`generation.make_generate` over batches as the evaluation makes them."""

  def __init__(self, arguments, config, params, prompts, pixels):
    from mllm_selector_jax.evaluation import generation

    self.config, self.params, self.new = config, params, arguments.new
    self.prompts, self.pixels = prompts, pixels
    self.settings = integers(arguments.batches)
    self.generation = generation
    self.order = sorted(
      range(len(prompts)),
      key=lambda row: (
        pixels[row] is not None,
        generation.bucket_length(len(prompts[row].tokens)),
        row,
      ),
    )

  def prepare(self, size: int) -> None:
    self.run(size)

  def run(self, size: int) -> np.ndarray:
    begun = time.perf_counter(), cpu_time()
    out = np.zeros((len(self.prompts), self.new), np.int32)
    generate = self.generation.make_generate(self.config, self.new, eos=-1)
    running = None
    for start in [*range(0, len(self.order), size), None]:
      batch = [] if start is None else self.order[start : start + size]
      ids = None
      if batch:
        made = self.generation.make_prompts(
          [self.prompts[row] for row in batch],
          [
            () if self.pixels[row] is None else (self.pixels[row][None],)
            for row in batch
          ],
          self.config,
          size,
        )
        ids = generate(self.params, *made)
      if running is not None:
        rows, done = running
        out[rows] = np.asarray(done)[: len(rows)]
      running = (batch, ids) if batch else None
    self.seconds = time.perf_counter() - begun[0], cpu_time() - begun[1]
    return out


class Theirs:
  """transformers' `generate` over batches sorted by length, padded on the left."""

  def __init__(self, arguments, config, model, prompts, pixels):
    import torch
    import transformers

    self.torch, self.model, self.new = torch, model, arguments.new
    self.settings = integers(arguments.batches)
    self.prompts = [torch.from_numpy(prompt.tokens).long() for prompt in prompts]
    mean = torch.tensor(config.image_mean).reshape(3, 1, 1)
    std = torch.tensor(config.image_std).reshape(3, 1, 1)
    dtype = getattr(torch, config.dtype)
    self.pixels = [
      None
      if image is None
      else ((torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std).to(dtype)
      for image in pixels
    ]
    self.order = np.argsort([-len(prompt.tokens) for prompt in prompts], kind="stable")
    self.options = transformers.GenerationConfig(
      do_sample=False,
      max_new_tokens=self.new,
      min_new_tokens=self.new,
      eos_token_id=None,
      pad_token_id=3,
      use_cache=True,
    )

  def prepare(self, size: int) -> None:
    self.run(size)

  def run(self, size: int) -> np.ndarray:
    torch = self.torch
    begun = time.perf_counter(), cpu_time()
    out = np.zeros((len(self.prompts), self.new), np.int32)
    for start in range(0, len(self.order), size):
      batch = self.order[start : start + size]
      longest = max(len(self.prompts[row]) for row in batch)
      ids = torch.full((len(batch), longest), 3)
      mask = torch.zeros_like(ids)
      for place, row in enumerate(batch):
        ids[place, longest - len(self.prompts[row]) :] = self.prompts[row]
        mask[place, longest - len(self.prompts[row]) :] = 1
      held = [self.pixels[row] for row in batch if self.pixels[row] is not None]
      seen = {"pixel_values": torch.stack(held)} if held else {}
      inputs = {"input_ids": ids, "attention_mask": mask, **seen}
      inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
      with torch.inference_mode():
        made = self.model.generate(**inputs, generation_config=self.options)
      out[batch] = made[:, longest:].cpu().numpy()
    self.seconds = time.perf_counter() - begun[0], cpu_time() - begun[1]
    return out


def make_sides(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[int]]:
  """Both sides by name, and the prompts' lengths."""
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
  hf_config.text_config.use_cache = True
  model = scoring_models.make_torch_model(hf_config, config, params)
  prompts = [cut_prompt(sample) for sample in pool.samples]
  pixels = [None if key is None else pool.pictures[key] for key in pool.keys]
  sides = {
    "transformers": Theirs(arguments, config, model, prompts, pixels),
    "ours": Ours(arguments, config, params, prompts, pixels),
  }
  return sides, [len(prompt.tokens) for prompt in prompts]


def cut_prompt(sample: Sample) -> Sample:
  """A row up to its first answer."""
  length = max(1, int(np.argmax(sample.supervised)))
  assert all(image.stop <= length for image in sample.images), "an image is asked about"
  fields = (sample.tokens, sample.supervised, sample.turns, sample.asked)
  return Sample(*(field[:length].copy() for field in fields), False, sample.images)


def main() -> None:
  keep_freed_memory()
  arguments = read_arguments()
  sides, lengths = make_sides(arguments)
  print(
    f"{len(lengths):,} prompts of {min(lengths)} to {max(lengths)} tokens (mean"
    f" {statistics.fmean(lengths):.0f}), {arguments.new} new tokens each, size"
    f" {arguments.size}, {arguments.dtype}",
    flush=True,
  )
  settings, compiling = {}, {}
  for name, side in sides.items():
    settings[name], compiling[name], found = tune(side)
    tried = ", ".join(
      f"batches of {key}: {value:.2f} s" for key, value in found.items()
    )
    print(f"tuning {name}: {tried}", flush=True)
  seconds, ids = {name: [] for name in sides}, {}
  for _ in range(arguments.repeats):
    for name, side in sides.items():
      ids[name] = side.run(settings[name])
      seconds[name].append(side.seconds)
  print("\n| | batch | samples/s | CPU ms a sample | compilation s | all walls s |")
  print("|---|---|---|---|---|---|")
  medians = {}
  for name in sides:
    walls, cpus = zip(*seconds[name], strict=True)
    medians[name] = statistics.median(walls), statistics.median(cpus)
    print(
      f"| {name} | {settings[name]} | {len(lengths) / medians[name][0]:.1f} |"
      f" {1000 * medians[name][1] / len(lengths):.2f} | {compiling[name]:.1f} |"
      f" {', '.join(f'{wall:.2f}' for wall in walls)} |"
    )
  wall, cpu = (
    theirs / ours
    for theirs, ours in zip(medians["transformers"], medians["ours"], strict=True)
  )
  print(f"\nours over transformers: {wall:.2f} by wall time, {cpu:.2f} by CPU time")
  same = ids["ours"] == ids["transformers"]
  print(
    f"rows with all {arguments.new} tokens equal: {same.all(1).mean():.4f};"
    f" first tokens equal: {same[:, 0].mean():.4f}"
  )


if __name__ == "__main__":
  main()
