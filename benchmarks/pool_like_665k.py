"""Lengths, images, turns and names like those of LLaVA's mix of 665,298 rows.

Counts by source are the published ones; so are 349,034 distinct paths, 5.2 rounds a
row, 576 image tokens behind 35 of the system text, a mean of about 821 tokens, and
the cut at 2,048. What is not published is assumed, and chosen so that the known
means come out:

- Rows of COCO are spread over its images by gamma weights of shape 3 (one row each
  at least: 4.1 in the mean). Every other path stands in one row.
- 72 % of GQA's images are also Visual Genome's (`by_path` counts them apart), which
  gives 2.1 rows an image.
- Tokens beside the trunk are lognormal (sigma .8, mean about 210 after the cut), of
  text-only rows too (median 750, sigma .8). Rounds are one and a geometric number
  more, mean 5.2.
- The supervised share of the tokens beside the trunk is beta distributed: (2, 6) in
  three of four rows with image, which answer in a word, (6, 3) in the others and in
  text-only ones.

Any number of rows keeps the proportions. For small models `image_tokens` and
`text_scale` make images and text shorter.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt64

ROWS = 665_298
COCO_ROWS, COCO_IMAGES = 364_100, 88_524
GENOME, GQA, OTHER = 86_417, 72_140, 101_953  # OCR-VQA and TextVQA are the others
SHARED_GQA = 0.72
TEXT_ONLY = 40_688
ROUNDS = 5.2


@dataclasses.dataclass(frozen=True)
class PoolLengths:
  """What the packing plan sees of a pool.

  Attributes:
    lengths: tokens of each row.
    trunks: tokens through the end of the image; 0 for text alone, and where the
      image stands in a later turn.
    supervised: tokens that are learned.
    images: a key of the image's pixels; 0 for none.
    turns: rounds.
  """

  lengths: Int[np.ndarray, " n"]
  trunks: Int[np.ndarray, " n"]
  supervised: Int[np.ndarray, " n"]
  images: UInt64[np.ndarray, " n"]
  turns: Int[np.ndarray, " n"]


def draw_pool(
  rows: int = ROWS,
  seed: int = 0,
  image_tokens: int = 576,
  system_tokens: int = 35,
  text_scale: float = 1.0,
  longest: int = 2048,
  by_path: bool = False,
  later: float = 0.0,
) -> PoolLengths:
  """Draws a pool; the same arguments give the same one.

  Args:
    rows: of the pool.
    seed: of the draw.
    image_tokens: of an image.
    system_tokens: before the image.
    text_scale: factor of all text beside the system's.
    longest: rows are cut there.
    by_path: whether the same pixels under two paths are two images.
    later: share of the rows with image whose image stands in a later turn.
  """
  rng = np.random.default_rng(seed)
  coco, genome, gqa, other, text = _split_rows(rows)
  images = [_spread(coco, round(coco * COCO_IMAGES / COCO_ROWS), rng)]
  place = int(images[0].max(initial=0))
  own = np.arange(place + 1, place + genome + gqa + other + 1)
  if not by_path:
    again = np.flatnonzero(rng.random(min(gqa, genome)) < SHARED_GQA)
    own[genome + again] = rng.permutation(own[:genome])[again]
  images += [own, np.zeros(text, int)]
  keys = rng.permutation(np.concatenate(images).astype(np.uint64))

  alone = keys == 0
  text = _lognormal(rng, np.where(alone, 750, 160), 0.8, rows)
  branch = np.maximum(np.rint(text * text_scale).astype(np.int64), 4)
  trunk = np.where(alone, 0, system_tokens + image_tokens)
  start = np.where(alone, system_tokens, trunk)  # of what may be learned
  lengths = np.minimum(start + branch, longest)
  long = alone | (rng.random(rows) < 0.25)
  share = np.where(long, rng.beta(6, 3, rows), rng.beta(2, 6, rows))
  learned = np.rint(share * (lengths - start)).astype(np.int64)
  moved = rng.random(rows) < later
  return PoolLengths(
    lengths=lengths.astype(np.int32),
    trunks=np.where(moved, 0, trunk).astype(np.int32),
    supervised=np.maximum(learned, 1).astype(np.int32),
    images=keys,
    turns=rng.geometric(1 / ROUNDS, rows).astype(np.int32),
  )


class Names(NamedTuple):
  """What rows are called, and their images.

  Attributes:
    ids: of each row: its image's, so that they repeat.
    images: path of each row's image below the image folder; None for text alone.
  """

  ids: list[str]
  images: list[str | None]


# Beside the published counts by first folder (OCR-VQA 80,000, TextVQA 21,953): an id
# is the stem of the image's file, and a hundredth of Visual Genome's rows have the id
# of a COCO image, which is the same photograph. Genome's images lie in two folders,
# as published; their shares are assumed.
OCR_SHARE = 80_000 / OTHER
SECOND_SHARE = 0.4
SAME_PHOTOGRAPH = 0.01


def draw_names(rows: int = ROWS, seed: int = 0) -> Names:
  """Draws ids and paths as LLaVA's mix has them, in a shuffled order.

  Args:
    rows: of the pool; fewer keep the proportions.
    seed: of the draw.
  """
  rng = np.random.default_rng([seed, 1])
  coco, genome, gqa, other, text = _split_rows(rows)
  ocr = round(other * OCR_SHARE)
  photographs = _spread(coco, round(coco * COCO_IMAGES / COCO_ROWS), rng)
  keys = [f"{number * 6 + 9:012d}" for number in range(photographs.max() + 1)]
  names = [(keys[one], f"coco/train2017/{keys[one]}.jpg") for one in photographs]
  again = rng.random(genome) < SAME_PHOTOGRAPH
  second = rng.random(genome) < SECOND_SHARE
  for number in range(genome):
    place = f"VG_100K{'_2' if second[number] else ''}/{2_300_000 + number}"
    id = keys[photographs[number % coco]] if again[number] else place
    names.append((id, f"vg/{place}.jpg"))
  for folder, count, first in (
    ("gqa/images", gqa, 1_000_000),
    ("ocr_vqa/images", ocr, 3_000_000),
    ("textvqa/train_images", other - ocr, 5_000_000),
  ):
    stems = (str(first + number) for number in range(count))
    names += [(stem, f"{folder}/{stem}.jpg") for stem in stems]
  names += [(f"chat_{number}", None) for number in range(text)]
  order = rng.permutation(len(names))
  return Names(
    [names[place][0] for place in order], [names[place][1] for place in order]
  )


def _split_rows(rows: int) -> list[int]:
  """Rows of COCO, Visual Genome, GQA, the others with image, and text alone."""
  part = [COCO_ROWS, GENOME, GQA, OTHER, TEXT_ONLY]
  edges = np.rint(np.cumsum([0, *part]) * (rows / ROWS)).astype(int)
  return np.diff(edges).tolist()


def _spread(rows: int, images: int, rng: np.random.Generator) -> np.ndarray:
  """An image of each row, numbered from 1; every image has a row at least."""
  weights = rng.gamma(3, size=images)
  more = np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(rows - images))
  return 1 + np.concatenate([np.arange(images), np.minimum(more, images - 1)])


def _lognormal(rng, median, sigma: float, count: int) -> np.ndarray:
  return median * np.exp(sigma * rng.standard_normal(count))
