"""Pools whose images have many sizes, drawn for the three forms that cut tiles.

The draw imitates a mix such as LLaVA-NeXT's: photographs, documents and charts, and
small squares, with up to four images a row. No published statistics stand behind it.
All shares and spreads below are assumptions, chosen so that every form has images of
few and of many tiles:

- Of all images, 60 % are photographs like COCO's: the long side has 640 pixels, the
  short side 480 (a half), 427 (a third) or 360; 70 % are wide, the others tall. 25 %
  are documents, charts and screenshots: their area is lognormal around 900,000 pixels
  (sigma .7), the ratio of their sides lognormal around 1 (sigma .6, between 1/4 and 4).
  15 % are squares of 100 to 400 pixels.
- 6 % of the rows have no image, 80 % one, 8 % two, 4 % three and 2 % four.
- 58 % of the rows with one image share it with others: 4.1 rows an image in the mean,
  as COCO's images are in LLaVA's mix of 665K (pool_like_665k.py).
- Tokens of text are lognormal (median 160, sigma .8; 750 without an image), and a beta
  distributed share of them is supervised, as in pool_like_665k.py.
"""

import math
import types
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.packing.prefixes import Prefixes
from mllm_selector_jax.types import ImageOptions, ImageTokens

CLIP = (0.48145466, 0.4578275, 0.40821073)
HALF = (0.5, 0.5, 0.5)
SIDES = range(384, 2305, 384)
NEXT_PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
# As the published models have them: pixels of a tile, and features along its side.
FORMS = {
  "internvl": BaseImages(
    ImageOptions(448, HALF, HALF, form="internvl", grid=16, max_tiles=12),
    ImageTokens(4, (5,), (6,)),
  ),
  "llava_next": BaseImages(
    ImageOptions(336, CLIP, CLIP, form="anyres", grid=24, pinpoints=NEXT_PINPOINTS),
    ImageTokens(4),
  ),
  "llava_onevision": BaseImages(
    ImageOptions(
      384,
      HALF,
      HALF,
      form="anyres",
      grid=27,
      pinpoints=tuple((high, wide) for high in SIDES for wide in SIDES),
      max_features=9,
      tile_several=False,
    ),
    ImageTokens(4),
  ),
}
SYSTEM = 35  # tokens before the first image
SHARED, ROWS_AN_IMAGE = 0.58, 4.1
IMAGES_A_ROW = (0.06, 0.80, 0.08, 0.04, 0.02)


class Drawn(NamedTuple):
  """A pool before any form has cut its images.

  Attributes:
    bounds: where each row's images begin in `images`, and the end.
    images: the number of each row's images.
    sizes: width and height of every image.
    text: tokens of each row beside those of its images.
    supervised, turns: of each row.
  """

  bounds: Int[np.ndarray, " bounds"]
  images: Int[np.ndarray, " n"]
  sizes: Int[np.ndarray, "i 2"]
  text: Int[np.ndarray, " r"]
  supervised: Int[np.ndarray, " r"]
  turns: Int[np.ndarray, " r"]


def draw_sizes(count: int, rng: np.random.Generator) -> Int[np.ndarray, "i 2"]:
  """Width and height of images, in pixels."""
  kind = rng.choice(3, count, p=(0.60, 0.25, 0.15))
  short = rng.choice([480, 427, 360], count, p=(1 / 2, 1 / 3, 1 / 6))
  wide = rng.random(count) < 0.7
  photograph = np.where(
    wide, [np.full(count, 640), short], [short, np.full(count, 640)]
  )
  area = 900_000 * np.exp(0.7 * rng.standard_normal(count))
  ratio = np.clip(np.exp(0.6 * rng.standard_normal(count)), 1 / 4, 4)
  document = np.sqrt([area * ratio, area / ratio])
  square = np.tile(rng.integers(100, 401, count), (2, 1))
  sizes = np.select([kind == 0, kind == 1], [photograph, document], square)
  # A grid of 4 pixels leaves few sizes, each of which is laid out once.
  return np.maximum(4, np.rint(sizes.T / 4).astype(np.int64) * 4)


def draw_pool(rows: int, seed: int = 0, questions: int | None = None) -> Drawn:
  """Draws a pool; the same arguments give the same one.

  Args:
    rows: of the pool.
    seed: of the draw.
    questions: rows that share each image, of which every row then has one.
  """
  rng = np.random.default_rng(seed)
  counts = rng.choice(len(IMAGES_A_ROW), rows, p=IMAGES_A_ROW)
  if questions is not None:
    counts = np.ones_like(counts)
  bounds = np.concatenate([[0], np.cumsum(counts)])
  images = np.arange(bounds[-1])
  if questions is not None:
    images //= questions
  sharing = np.flatnonzero((counts == 1) & (rng.random(rows) < SHARED))
  firsts = bounds[sharing][: math.ceil(len(sharing) / ROWS_AN_IMAGE)]
  if len(sharing) and questions is None:
    images[bounds[sharing]] = rng.choice(firsts, len(sharing))
  text = np.where(counts > 0, 160, 750) * np.exp(0.8 * rng.standard_normal(rows))
  text = np.clip(np.rint(text), 4, 1200).astype(np.int64)
  share = np.where(rng.random(rows) < 0.25, rng.beta(6, 3, rows), rng.beta(2, 6, rows))
  return Drawn(
    bounds,
    images,
    draw_sizes(int(bounds[-1]), rng),
    text + SYSTEM,
    np.maximum(1, np.rint(share * text)).astype(np.int64),
    rng.geometric(1 / 5.2, rows),
  )


def describe(drawn: Drawn, form: BaseImages) -> types.SimpleNamespace:
  """The columns of a checked pool that planning asks for, in this form."""
  counts = np.diff(drawn.bounds)
  row_of = np.repeat(np.arange(len(counts)), counts)
  sizes = drawn.sizes[drawn.images]
  held = {}
  for width, height, number in np.unique(
    np.column_stack([sizes, counts[row_of]]), axis=0
  ).tolist():
    layout = form.lay_out(width, height, number)
    held[width, height, number] = len(layout.tokens), layout.tiles, len(layout.taps)
  keys = zip(*sizes.T.tolist(), counts[row_of].tolist(), strict=True)
  of_image = np.array([held[key] for key in keys], np.int64).reshape(-1, 3)
  totals = [np.bincount(row_of, column, len(counts)) for column in of_image.T]
  image_tokens, tiles, taps = (total.astype(np.int64) for total in totals)
  return types.SimpleNamespace(
    tokens=drawn.text + image_tokens,
    supervised=drawn.supervised,
    turns=drawn.turns,
    has_image=counts > 0,
    image_tokens=image_tokens,
    tiles=tiles,
    taps=taps,
    prefixes=_list_prefixes(drawn.bounds, drawn.images, of_image),
  )


def _list_prefixes(bounds, images, of_image) -> Prefixes:
  """What precedes a row's first image, and what ends with each of its images."""
  counts = np.diff(bounds)
  several = counts > 0
  ends = np.cumsum(of_image, 0) if len(of_image) else of_image
  before = ends[bounds[:-1][several]] - of_image[bounds[:-1][several]]
  place = np.repeat(np.arange(several.sum()), counts[several])
  within = ends - before[place]
  key = np.uint64(1)
  keys = np.empty(len(images), np.uint64)
  with np.errstate(over="ignore"):
    for depth in range(int(counts.max(initial=0))):
      at = bounds[:-1][counts > depth] + depth
      key = np.uint64(1) if depth == 0 else keys[at - 1]
      own = (images[at].astype(np.uint64) + np.uint64(2)) << np.uint64(1)
      keys[at] = key * np.uint64(6_364_136_223_846_793_005) + own
  starts = np.cumsum(counts[several]) - counts[several]
  columns = [np.insert(column, starts, 0) for column in within.T]
  tokens = columns[0] + SYSTEM
  return Prefixes(
    np.concatenate([[0], np.cumsum(counts + several)]),
    tokens,
    columns[1],
    columns[2],
    np.insert(keys, starts, np.uint64(1)),
    np.zeros_like(tokens),
  )


def keep_rows(table: types.SimpleNamespace, longest: int) -> Int[np.ndarray, " n"]:
  """The rows that are no longer than so many tokens."""
  return np.flatnonzero(table.tokens <= longest)
