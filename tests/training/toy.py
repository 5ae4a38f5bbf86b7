"""A tiny model and random packed batches, for tests of losses and loops."""

import numpy as np

from benchmarks.pool_columns import place_image
from mllm_selector_jax.data.packing import assembly, loader, row_packing
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.vision_config import VisionConfig
from mllm_selector_jax.types import Sample

CONFIG = MllmConfig(
  vision=VisionConfig(16, 32, 2, 2, image_size=8, patch_size=4),
  decoder=DecoderConfig(
    vocab=40, width=16, mlp=32, layers=2, heads=4, kv_heads=2, head_dim=4
  ),
  image_token=4,
)


def random_samples(count, seed=0, text_share=0.3):
  """Samples by number, as `assembly.assemble` takes them."""
  samples = {}
  for item in range(count):
    rng = np.random.default_rng([seed, item])
    has_image = rng.random() > text_share
    length = int(rng.integers(8, 14))
    tokens = rng.integers(5, 40, length).astype(np.int32)
    tokens[0] = 1
    tiles = ()
    if has_image:
      tokens[2 : 2 + CONFIG.patches] = CONFIG.image_token
      tiles = (rng.integers(0, 256, (1, 8, 8, 3), np.uint8),)
    mask = np.zeros(length, bool)
    mask[-2:] = True
    turns = np.where(mask, 0, -1).astype(np.int32)
    sample = Sample(tokens, mask, turns, np.zeros(length, bool), False)
    placed = place_image(sample, CONFIG.image_token, CONFIG.patches)
    samples[item] = placed, tiles
  return samples


def find_shape(config, samples, steps, row_length, shards=1):
  """The shape of batches that hold these steps of samples, numbered from 0."""
  plain = [samples[item][0] for item in range(len(samples))]
  layouts = [[image.layout for image in sample.images] for sample in plain]
  counts = assembly.Counts(
    tiles=np.array([sum(layout.tiles for layout in row) for row in layouts]),
    taps=np.array([sum(len(layout.taps) for layout in row) for row in layouts]),
    supervised=np.array([sample.supervised.sum() for sample in plain]),
    answers=np.array([sample.turns.max() + 1 for sample in plain]),
  )
  return assembly.find_steps_shape(steps, counts, row_length, config.tiling, shards)


class Batches(list):
  """Batches of the steps, in the form that the loop reads."""

  def __init__(self, samples, steps, row_length, multiple=1, config=CONFIG):
    shape = find_shape(config, samples, steps, row_length, multiple)
    self.shape = shape
    super().__init__(
      assembly.assemble(loader.as_trees(step), samples, shape, config.image_token)
      for step in steps
    )

  def to_grain(self):
    import grain

    return grain.MapDataset.source(list(self)).to_iter_dataset()


def make_batches(count=24, batch=6, epochs=2, row_length=32, multiple=1, seed=0):
  """`multiple`: shards of a batch."""
  samples = random_samples(count, seed)
  lengths = np.array([len(samples[i][0].tokens) for i in range(count)])
  steps = row_packing.training_steps(count, lengths, batch, epochs, seed, row_length)
  return Batches(samples, steps, row_length, multiple)
