"""A pool in memory: samples with turns, shared images, text alone, late images."""

import types

import numpy as np

from benchmarks.pool_columns import describe_samples, place_image
from mllm_selector_jax.scoring import engine, passes, score_parts
from mllm_selector_jax.types import Sample
from tests.training.toy import CONFIG

IMAGE = CONFIG.image_token
SYSTEM = np.array([1, 7, 8], np.int32)  # what every row begins with


class Pool:
  """Rows as the checked pool describes them, and as a reader gives them.

  Attributes:
    table: the columns that scoring asks for.
    samples: (Sample, tiles of its images) of each row.
    keys: of each row's image; -1 for text alone.
  """

  encoder = types.SimpleNamespace(image_token=IMAGE)

  def __init__(self, samples, keys):
    self.samples = [
      (place_image(sample, IMAGE, CONFIG.patches), () if image is None else (image,))
      for sample, image in samples
    ]
    placed = [sample for sample, _ in self.samples]
    names = [[str(key)] * len(s.images) for key, s in zip(keys, placed, strict=True)]
    self.table = describe_samples(placed, names)
    pairs = zip(keys, placed, strict=True)
    self.keys = np.array([key if sample.images else -1 for key, sample in pairs])
    self.options = types.SimpleNamespace(size=CONFIG.vision.image_size)

  def read(self, row):
    return self.samples[row]


def make_pool(count=23, seed=0, images=5):
  """A random pool; every image is shared by several rows."""
  rng = np.random.default_rng(seed)
  pictures = rng.integers(0, 256, (images, 1, 8, 8, 3), np.uint8)
  samples, keys = [], []
  for row in range(count):
    kind = ("text", "late", "image", "image", "image")[row % 5]
    picture = int(rng.integers(images))
    parts = [(SYSTEM, "frame")]
    image = (np.full(CONFIG.patches, IMAGE), "frame")
    if kind == "image":
      parts.append(image)
    turns = 2 if kind == "late" else int(rng.integers(1, 4))
    for turn in range(turns):
      if kind == "late" and turn == 1:
        parts.append(image)
      parts.append((rng.integers(9, 40, rng.integers(1, 5)), "asked"))
      parts.append((np.array([6]), "frame"))
      parts.append((rng.integers(9, 40, rng.integers(1, 4)), turn))
    samples.append((join(parts), None if kind == "text" else pictures[picture]))
    keys.append(picture)
  return Pool(samples, keys)


def join(parts):
  """A sample of (tokens, "frame", "asked" or the turn that is learned)."""
  tokens = np.concatenate([ids for ids, _ in parts]).astype(np.int32)
  kinds = [kind for ids, kind in parts for _ in ids]
  turns = np.array([kind if isinstance(kind, int) else -1 for kind in kinds])
  asked = np.array([kind == "asked" for kind in kinds])
  return Sample(tokens, turns >= 0, turns.astype(np.int32), asked, False)


def score(
  pool, params, folder, mesh, own=passes.MAIN, rows=None, config=CONFIG, **options
):
  """Runs a pass; the columns in pool order, as numpy, and the embeddings."""
  options = {"row_length": 48, "batch_rows": 4, "part_rows": 8, "threads": 0} | options
  rows = np.arange(len(pool.samples)) if rows is None else rows
  folder.mkdir(parents=True, exist_ok=True)
  counts = engine.run_pass(
    config, params, pool, rows, engine.ScoreOptions(**options), mesh, folder, own
  )
  return counts, *read(folder, counts["parts"])


def read(folder, count):
  found = list(score_parts.read_parts(folder, count))
  columns = {
    name: np.concatenate([table[name].to_numpy() for table, _ in found])
    for name in found[0][0].column_names
    if name != "turn_losses"
  }
  order = np.argsort(columns["row"])
  turns = [losses for table, _ in found for losses in table["turn_losses"].to_pylist()]
  columns = {name: values[order] for name, values in columns.items()}
  columns["turn_losses"] = [turns[place] for place in order]
  embeddings = [array for _, array in found if array is not None]
  return columns, np.concatenate(embeddings)[order] if embeddings else None
