"""The sizes that images are fitted to, as LLaVA's own config.json states them.

LLaVA states pairs (width, height): in pixels as a list, also written as a text, or in
tiles as a text that names the smallest and the largest grid, `(1x1),...,(6x6)`.
"""

import json
import re
from typing import Any, NamedTuple

from mllm_selector_jax.models.huggingface.processor_checks import MOST_TILES

FORMS = (
  "a list of pairs [width, height] in pixels, or the smallest and the largest grid of"
  f" at most {MOST_TILES} tiles, as in '(1x1),...,(6x6)',"
)
_GRID = r"\(([1-9][0-9]{0,2})x([1-9][0-9]{0,2})\)"
_GRIDS = re.compile(rf"{_GRID}(?:,(?:\.\.\.,)?{_GRID})*")


class Pinpoints(NamedTuple):
  """Sizes that images are fitted to.

  Attributes:
    pairs: (height, width), in the order that decides between equals.
    in_tiles: whether they are in tiles and not in pixels.
  """

  pairs: list[list[int]]
  in_tiles: bool

  def in_pixels(self, side: int) -> list[list[int]]:
    """The pairs in pixels, for tiles of this side."""
    scale = side if self.in_tiles else 1
    return [[scale * height, scale * width] for height, width in self.pairs]


def read_pinpoints(value: Any) -> Pinpoints | None:
  """Reads `image_grid_pinpoints`; returns None if it has none of LLaVA's forms."""
  if not isinstance(value, str):
    return _swap(value, False)
  text = "".join(value.split())
  if _GRIDS.fullmatch(text):
    return _swap(_expand(text), True)
  try:
    return _swap(json.loads(text.translate(str.maketrans("()", "[]"))), False)
  except (ValueError, RecursionError):
    return None


def _expand(text: str) -> list[list[int]] | None:
  """Every grid from the first to the last, the height counting fastest.

  Where each grid is listed, LLaVA's versions differ: the first ones took those that
  are listed. None unless both readings are the same, or if a grid is too large.
  """
  listed = [[int(wide), int(high)] for wide, high in re.findall(_GRID, text)]
  (wide, high), (most_wide, most_high) = listed[0], listed[-1]
  if most_wide * most_high > MOST_TILES:
    return None
  grids = [
    [width, height]
    for width in range(wide, most_wide + 1)
    for height in range(high, most_high + 1)
  ]
  return grids if "..." in text or grids == listed else None


def _swap(pairs: Any, in_tiles: bool) -> Pinpoints | None:
  """The pairs as (height, width); None if they are not pairs of whole numbers."""
  if not isinstance(pairs, list) or not pairs:
    return None
  for pair in pairs:
    if not isinstance(pair, list) or len(pair) != 2:
      return None
    if any(type(length) is not int or length < 1 for length in pair):
      return None
  return Pinpoints([[height, width] for width, height in pairs], in_tiles)
