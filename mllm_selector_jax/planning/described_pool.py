"""A pool that is known by a few figures, with the columns that estimates ask for.

Lengths are spread as those of real pools, and no row exists: it is enough to pack rows
and to count FLOPs.
"""

import dataclasses
import math
import re
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.data.packing.prefixes import Prefixes
from mllm_selector_jax.types import ImageLayout, InputError

TEXT = 200  # tokens of a row beside its images, where no figure is given
SPREAD = 0.8  # of the logarithm of a text's length, as in LLaVA's mix of 665K
LEARNED = 1 / 3  # of a text's tokens, where no figure is given
LEAST = 4  # tokens of a text
_MOST_TOKENS = 1 << 20  # of an image
MOST_ROWS = 100_000_000  # of a pool that a summary describes
LEAD = 4  # tokens before a row's first image


class ImageCounts(NamedTuple):
  """Images of each row, as `Lists` counts them."""

  counts: Int[np.ndarray, " N"]


@dataclasses.dataclass(frozen=True)
class DescribedPool:
  """The columns of a checked pool that packing and FLOPs follow from.

  All rows are usable; the columns are those of `pool_table.Line`.
  """

  tokens: Int[np.ndarray, " N"]
  supervised: Int[np.ndarray, " N"]
  turns: Int[np.ndarray, " N"]
  image_tokens: Int[np.ndarray, " N"]
  tiles: Int[np.ndarray, " N"]
  taps: Int[np.ndarray, " N"]
  images: ImageCounts
  prefixes: Prefixes

  def __len__(self) -> int:
    return len(self.tokens)

  @property
  def ok(self) -> Bool[np.ndarray, " N"]:
    """All rows."""
    return np.ones(len(self), bool)

  @property
  def has_image(self) -> Bool[np.ndarray, " N"]:
    """Which rows have images."""
    return self.images.counts > 0


def check_figures(cfg: Any) -> None:
  """Check the settings that describe a pool against each other.

  Raises:
    InputError: Two of them describe the pool, or a figure has no `plan.rows`.
  """
  if cfg.rows is not None and cfg.summary is not None:
    raise InputError(
      f"plan.rows={cfg.rows:,} and plan.summary={cfg.summary} both describe the pool;"
      " give one of them."
    )
  if cfg.rows is None and cfg.tokens is not None:
    raise InputError(
      f"plan.tokens={cfg.tokens:g} is the mean of a row, and there is no number of"
      " rows; give plan.rows too."
    )


def read_size(text: str) -> tuple[int, int]:
  """Read the width and the height of an image, as in "640x480".

  Raises:
    InputError: It is no such size.
  """
  match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", str(text))
  if match is None:
    raise InputError(
      f"plan.image_size={text!r}: give width and height in pixels, such as 640x480."
    )
  return int(match[1]), int(match[2])


def describe_rows(
  rows: int,
  tokens: float | None,
  images: float,
  layout: ImageLayout,
  longest: int,
  seed: int = 0,
) -> DescribedPool:
  """Describe a pool by means. No two rows share an image.

  Args:
    rows: how many.
    tokens: the mean of a row, its images' included, after rows are cut; None for
      `TEXT` beside the images, or half of the room where that is less.
    images: the mean of a row; 0.9 means one in nine of ten rows.
    layout: what an image becomes.
    longest: tokens of the longest row; longer ones are cut there.
    seed: of the order of the rows.

  Raises:
    InputError: The tokens leave no room for the images, or are more than `longest`.
  """
  each = len(layout.tokens)
  order = np.random.default_rng(seed).permutation(rows)
  ranks = (order + 0.5) / rows
  counts = math.floor(images) + (ranks < images % 1).astype(np.int64)
  mean = each * counts.mean()
  most = each * int(counts.max())  # of images
  text = min(TEXT, (longest - mean) / 2) if tokens is None else tokens - mean
  if text < LEAST or most + LEAST > longest or mean + text > longest:
    amount = "not given" if tokens is None else f"{tokens:g}"
    raise InputError(
      f"plan.tokens is {amount}, and a row's images alone have {mean:,.0f} tokens in"
      f" the mean and {most:,} at most; model.max_length is {longest:,}. Give"
      f" plan.tokens of at least {math.ceil(mean) + LEAST:,} and at most"
      " model.max_length, or fewer plan.images."
    )
  # Another order than that of the images, so that text and images are independent.
  ranks = (np.random.default_rng(seed + 1).permutation(rows) + 0.5) / rows
  lengths = _spread(ranks, text, longest - each * counts)
  return _make_pool(
    lengths + each * counts,
    np.maximum(1, np.rint(LEARNED * lengths)).astype(np.int64),
    counts,
    layout,
    each * counts,
    layout.tiles * counts,
    0,
  )


def describe_summary(
  summary: Any, layout: ImageLayout, source: str, seed: int = 0
) -> DescribedPool:
  """Describe a pool by the summary of its check.

  Longer rows are taken to have more images, and images that several rows have to be
  spread evenly over these.

  Args:
    summary: the content of a `pool_summary.json`.
    layout: what an image becomes, for what the summary does not count.
    source: the file's name, for messages.
    seed: of the order of the rows.

  Raises:
    InputError: It is no such summary, or it has no usable row.
  """
  try:
    rows, images = int(summary["ok"]), summary["images"]
    float(images["bytes"])  # which `pool_figures` reads
    histogram = sorted((int(count), int(n)) for count, n in images["a_row"].items())
    if rows > MOST_ROWS or sum(n for _, n in histogram) != max(rows, 0):
      raise ValueError(f"{rows:,} rows, of which the images are told of others")
    order = np.random.default_rng(seed).permutation(rows)
    ranks = (order + 0.5) / max(rows, 1)
    lengths = _interpolate(summary["tokens"], ranks)
    learned = np.minimum(_interpolate(summary["supervised"], ranks), lengths - 1)
    turns = np.maximum(1, _interpolate(summary["turns"], ranks))
    counts = np.repeat(*np.array(histogram, np.int64).reshape(-1, 2).T)[order]
    uses, distinct = int(images["uses"]), int(images["distinct"])
    image_tokens, tiles = int(images["tokens"]), int(images["tiles"])
    most = _MOST_TOKENS * max(uses, 1)
    if not (0 <= distinct <= uses and 0 <= image_tokens <= most and 0 <= tiles <= most):
      raise ValueError("the figures of its images do not add up")
  except (
    *(KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError),
  ) as error:
    raise InputError(
      f"{source} is no summary of a checked pool ({type(error).__name__}: {error})."
      " Give the pool_summary.json that `check` writes."
    ) from error
  if rows < 1:
    raise InputError(f"{source} describes a pool without a usable row.")
  each = _share_out(image_tokens / max(uses, 1), counts)
  return _make_pool(
    np.maximum(lengths, each + LEAD + 2),
    learned,
    counts,
    layout,
    each,
    _share_out(tiles / max(uses, 1), counts),
    round(distinct * int((counts > 0).sum()) / max(uses, 1)),
    turns,
  )


def _make_pool(
  tokens: Int[np.ndarray, " N"],
  supervised: Int[np.ndarray, " N"],
  counts: Int[np.ndarray, " N"],
  layout: ImageLayout,
  image_tokens: Int[np.ndarray, " N"],
  tiles: Int[np.ndarray, " N"],
  distinct: int,
  turns: Int[np.ndarray, " N"] | None = None,
) -> DescribedPool:
  """Make the columns; `distinct` is how many sets of images rows share, 0 for none."""
  taps = len(layout.taps) / max(layout.tiles, 1)
  turns = np.ones(len(tokens), np.int64) if turns is None else turns
  columns = tokens, supervised, turns, image_tokens, tiles, np.rint(taps * tiles)
  return DescribedPool(
    *(np.asarray(column, np.int32) for column in columns),
    ImageCounts(counts),
    _share_images(image_tokens, tiles, np.rint(taps * tiles), distinct),
  )


def _share_images(
  image_tokens: Int[np.ndarray, " N"],
  tiles: Int[np.ndarray, " N"],
  taps: Float[np.ndarray, " N"],
  distinct: int,
) -> Prefixes:
  """Make prefixes by which rows share images evenly: one before, one through them."""
  has = (image_tokens > 0) & (distinct > 0)
  rows = np.flatnonzero(has)
  bounds = np.concatenate([[0], np.cumsum(2 * has)])
  keys = 2 + np.arange(len(rows)) % max(distinct, 1)
  # Rows of one key must begin alike; others keep their images to themselves.
  keys = keys.astype(np.uint64) + (
    image_tokens[rows].astype(np.uint64) << np.uint64(32)
  )

  def pair(before: Any, through: Any, kind: Any) -> np.ndarray:
    both = np.stack([np.broadcast_to(before, len(rows)), through], 1)
    return both.reshape(-1).astype(kind)

  return Prefixes(
    bounds,
    pair(LEAD, LEAD + image_tokens[rows], np.int32),
    pair(0, tiles[rows], np.int32),
    pair(0, taps[rows], np.int32),
    pair(1, keys, np.uint64),
    pair(0, np.zeros(len(rows)), np.int32),
  )


def _spread(
  ranks: Float[np.ndarray, " N"], mean: float, most: Int[np.ndarray, " N"]
) -> Int[np.ndarray, " N"]:
  """Spread lengths lognormally, with this mean after they are cut at `most`."""
  grid = np.linspace(0.0005, 0.9995, 1000)
  normal = np.array([statistics.NormalDist().inv_cdf(rank) for rank in grid])
  shape = np.exp(SPREAD * np.interp(ranks, grid, normal))
  low, high = 0.0, 1000.0 * max(mean, 1.0)
  for _ in range(60):
    scale = (low + high) / 2
    if np.clip(scale * shape, LEAST, most).mean() < mean:
      low = scale
    else:
      high = scale
  return np.rint(np.clip(high * shape, LEAST, most)).astype(np.int64)


def _interpolate(
  figures: Mapping[str, Any], ranks: Float[np.ndarray, " N"]
) -> Int[np.ndarray, " N"]:
  """Return values of these ranks between percentiles, with the mean of the figures."""
  marks = {float(mark): value for mark, value in figures["percentiles"].items()}
  points = sorted({0.0: figures["least"], **marks, 100.0: figures["most"]}.items())
  at, values = np.array(points, float).T
  found = np.interp(100 * ranks, at, values)
  if len(found) and found.mean() > 0:
    found = np.clip(found * (figures["mean"] / found.mean()), values[0], values[-1])
  return np.rint(found).astype(np.int64)


def _share_out(each: float, counts: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
  """Give rows so many of something for each image, in whole numbers."""
  return np.rint(each * counts).astype(np.int64)
