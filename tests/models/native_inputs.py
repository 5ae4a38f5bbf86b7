"""Images in their own sizes as tiles of a shard, and as transformers takes them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mllm_selector_jax.data.packing import assembly, loader
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.types import Batch, ImageLayout, PlacedImage, Sample
from tests.native_images import lay_out_grid

Grid = tuple[int, int]  # rows and columns of tiles


def order_tiles(grid: Grid, window: int) -> np.ndarray:
  """Row and column of each tile, window by window; see `ImageLayout.places`."""
  rows, columns = grid
  places = [(row, column) for row in range(rows) for column in range(columns)]
  if window:
    places.sort(key=lambda at: (at[0] // window, at[1] // window, *at))
  return np.array(places, np.int32)


def draw_tiles(config: MllmConfig, rng: np.random.Generator, grid: Grid) -> np.ndarray:
  """Random tiles of an image."""
  side = config.vision.image_size
  return rng.integers(0, 256, (grid[0] * grid[1], side, side, 3), np.uint8)


def pack_images(
  config: MllmConfig, shards: Sequence[Sequence[tuple[Grid, np.ndarray]]], tiles: int
) -> tuple[np.ndarray, np.ndarray]:
  """Tiles and places of shards of images, `tiles` a shard; see `types.Batch`."""
  side = config.vision.image_size
  images = np.zeros((len(shards), tiles, side, side, 3), np.uint8)
  places = np.zeros((len(shards), tiles, 5), np.int32)
  for shard, found in enumerate(shards):
    start = 0
    for number, (grid, cut) in enumerate(found, 1):
      here = slice(start, start + len(cut))
      images[shard, here] = cut
      places[shard, here, 0] = number
      places[shard, here, 1:3] = order_tiles(grid, config.vision.window)
      places[shard, here, 3:] = grid
      start += len(cut)
  return images, places


def sort_raster(config: MllmConfig, grid: Grid) -> np.ndarray:
  """The tiles' numbers row by row."""
  rows, columns = order_tiles(grid, config.vision.window).T
  return np.lexsort((columns, rows))


def make_native_inputs(
  config: MllmConfig, images: Sequence[tuple[Grid, np.ndarray]]
) -> dict[str, Any]:
  """`pixel_values` and `image_grid_thw` of images, as transformers' processors do."""
  size, merge = config.vision.patch_size, config.vision.grid
  mean, deviation = map(np.array, (config.image_mean, config.image_std))
  rows, grids = [], []
  for grid, cut in images:
    scaled = (cut[sort_raster(config, grid)] / 255.0 - mean) / deviation
    patches = scaled.reshape(-1, merge, size, merge, size, 3)
    patches = patches.transpose(0, 1, 3, 5, 2, 4).reshape(-1, 3, 1, size, size)
    rows.append(np.repeat(patches, config.vision.frames, axis=2))
    grids.append((1, merge * grid[0], merge * grid[1]))
  values = np.concatenate(rows).reshape(sum(map(len, rows)), -1).astype(np.float32)
  return {
    "pixel_values": torch.tensor(values),
    "image_grid_thw": torch.tensor(grids),
  }


def make_placed_inputs(
  config: MllmConfig, images: Sequence[tuple[Grid, np.ndarray]]
) -> dict[str, Any]:
  """`pixel_values` and `image_position_ids` of images, as Gemma 4's processor does."""
  side = config.vision.patch_size
  most = max(len(cut) for _, cut in images) * config.vision.grid**2
  values, places = [], []
  for (rows, columns), cut in images:
    whole = cut.reshape(rows, columns, *cut.shape[1:]).swapaxes(1, 2)
    height, width = (n * config.vision.grid for n in (rows, columns))
    patches = whole.reshape(height, side, width, side, 3).swapaxes(1, 2) / 255.0
    patches = patches.reshape(height * width, -1)
    row, column = np.divmod(np.arange(height * width), width)
    room = ((0, most - len(patches)), (0, 0))
    values.append(np.pad(patches, room))
    places.append(np.pad(np.stack([column, row], -1), room, constant_values=-1))
  return {
    "pixel_values": torch.tensor(np.stack(values)),
    "image_position_ids": torch.tensor(np.stack(places)),
  }


Drawn = tuple[Sample, tuple[np.ndarray, ...]]  # with the tiles of each image


def draw_sample(
  config: MllmConfig,
  rng: np.random.Generator,
  parts: Sequence[int | Grid],
  lay_out: Callable[[int, int], ImageLayout] | None = None,
) -> Drawn:
  """An example of random text and images, every token of which but the first counts.

  Args:
    config: the model.
    rng: draws text and pixels.
    parts: how many tokens of text, or the grid of an image, in order.
    lay_out: from rows and columns of tiles to the image's layout; None for tiles in the
      order of the tower's windows, with a mark before and after them.
  """
  tokens, images, tiles = [], [], []
  for part in parts:
    if isinstance(part, int):
      tokens.extend(rng.integers(7, config.decoder.vocab, part).tolist())
      continue
    if lay_out is None:
      rows, columns = order_tiles(part, config.vision.window).T
      layout = lay_out_grid(*part, rows * part[1] + columns)
    else:
      layout = lay_out(*part)
    images.append(PlacedImage(len(tokens), layout))
    tokens.extend(images[-1].layout.tokens.tolist())
    tiles.append(draw_tiles(config, rng, part))
  learned = np.arange(len(tokens)) > 0
  sample = Sample(
    np.array(tokens, np.int32),
    learned,
    np.where(learned, 0, -1).astype(np.int32),
    np.zeros(len(tokens), bool),
    False,
    tuple(images),
  )
  return sample, tuple(tiles)


def pack_rows(
  config: MllmConfig, rows: Sequence[Sequence[Drawn]], length: int
) -> Batch:
  """Packs examples one after the other; each row is a shard."""
  examples = dict(enumerate(example for row in rows for example in row))
  items = iter(examples)
  numbers = [[next(items) for _ in row] for row in rows]
  counts = assembly.Counts(
    *(
      np.array([count(*example) for example in examples.values()])
      for count in (
        lambda _, tiles: sum(map(len, tiles)),
        lambda *_: 0,
        lambda sample, _: int(sample.supervised.sum()),
        lambda *_: 1,
      )
    )
  )
  shape = assembly.find_steps_shape([numbers], counts, length, config.tiling, len(rows))
  batch, _ = assembly.assemble(
    loader.as_trees(numbers), examples, shape, config.image_token
  )
  return batch


def make_torch_row(config: MllmConfig, example: Drawn) -> dict[str, Any]:
  """What a model in transformers takes for an example."""
  sample, tiles = example
  images = [
    (image.layout.grid, cut) for image, cut in zip(sample.images, tiles, strict=True)
  ]
  tokens = torch.tensor(sample.tokens[None], dtype=torch.long)
  return {
    "input_ids": tokens,
    "mm_token_type_ids": (tokens == config.image_token).int(),
    **(make_native_inputs(config, images) if images else {}),
  }
