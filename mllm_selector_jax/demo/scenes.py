"""What a drawn image shows: scenes as data, made at random, never drawn here.

A scene states every pixel-relevant number (in pixels of its own canvas), so
that equal scenes are equal images. `held_out` splits all scenes, and all texts
without one, for good: evaluation takes one side, pool and captions the other.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

from mllm_selector_jax.demo.language import (
  COLORS,
  CORNERS,
  LEVELS,
  REGIONS,
  SHAPES,
  WORDS,
)

RGB = tuple[int, int, int]
Item = TypeVar("Item")

# 18..240 leaves room for the tints of `_tint` and `nudge` within 0..255.
_INKS: dict[str, RGB] = {
  "red": (215, 40, 40),
  "green": (40, 165, 60),
  "blue": (45, 75, 215),
  "yellow": (236, 216, 45),
  "orange": (238, 130, 25),
  "purple": (140, 50, 175),
  "black": (18, 18, 18),
  "white": (240, 240, 240),
}
# Backgrounds, each with the colours that would not be seen on it.
_BACKDROPS: tuple[tuple[RGB, tuple[str, ...]], ...] = (
  ((222, 222, 216), ("white",)),
  ((52, 52, 58), ("black",)),
  ((168, 196, 222), ("white",)),
  ((212, 194, 156), ("yellow", "white")),
  ((66, 92, 74), ("black", "green")),
  ((134, 134, 134), ()),
)
# Width and height in pixels; the oblong ones make a model pad.
_CANVASES = (*((32, 32), (64, 64), (48, 48)) * 3, (64, 48), (48, 64))
_SIGN_CANVASES = ((64, 64), (64, 64), (48, 48), (64, 48))
_CHART_CANVASES = ((32, 32), (64, 64), (48, 48), (64, 56))
_TINT = 10  # most that a channel moves away from its colour's value


@dataclasses.dataclass(frozen=True)
class Thing:
  """A coloured shape: the upper left corner and side of its bounding square."""

  shape: str
  color: str
  region: str
  left: int
  top: int
  size: int
  rgb: RGB


@dataclasses.dataclass(frozen=True)
class Layout:
  """One to four things, one a quadrant, or a single one in the centre."""

  width: int
  height: int
  background: RGB
  things: tuple[Thing, ...]

  source = "scenes"


@dataclasses.dataclass(frozen=True)
class Sign:
  """A coloured panel with a word; `dot` is a glyph pixel's width and height."""

  width: int
  height: int
  background: RGB
  word: str
  color: str
  panel: tuple[int, int, int, int]
  rgb: RGB
  ink: RGB
  left: int
  top: int
  dot: tuple[int, int]

  source = "signs"


@dataclasses.dataclass(frozen=True)
class Bar:
  """A bar of a chart; `value` counts levels, 1 to 4."""

  color: str
  value: int
  left: int
  right: int
  rgb: RGB


@dataclasses.dataclass(frozen=True)
class Chart:
  """Two or three bars of different values standing on `base`, with a grid."""

  width: int
  height: int
  background: RGB
  bars: tuple[Bar, ...]
  base: int
  unit: int
  grid: RGB

  source = "charts"


Scene = Layout | Sign | Chart


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
  return items[int(rng.integers(len(items)))]


def draw_some(
  rng: np.random.Generator, items: Sequence[Item], count: int
) -> list[Item]:
  """`count` different ones of the items, in random order."""
  return [items[int(i)] for i in rng.permutation(len(items))[:count]]


def chance(rng: np.random.Generator, probability: float) -> bool:
  return bool(rng.random() < probability)


def to_json(scene: Scene) -> dict[str, Any]:
  return {"source": scene.source, **dataclasses.asdict(scene)}


def held_out(content: Hashable, share: int = 4) -> bool:
  """Whether a scene or a text belongs to evaluation: one in `share` does.

  Decided by a hash of the content, so that whatever the seeds and options are,
  no evaluation scene can ever occur in a pool.
  """
  return hashlib.sha256(repr(content).encode()).digest()[0] % share == 0


def make_on_side(make: Callable[[], Item], held: bool, share: int = 4) -> Item:
  """Makes scenes or texts until one lies on the wanted side of `held_out`."""
  while held_out(made := make(), share) != held:
    pass
  return made


def make_layout(
  rng: np.random.Generator,
  count: int,
  *,
  distinct_shapes: bool = False,
  distinct_colors: bool = False,
  shapes: Sequence[str] = (),
  scales: Sequence[tuple[float, float]] = (),
  regions: Sequence[str] = (),
) -> Layout:
  """A random layout.

  Args:
    rng: the source of randomness.
    count: number of things, 1 to 4.
    distinct_shapes, distinct_colors: whether no two things share one.
    shapes: the things' shapes; drawn when empty.
    scales: the things' least and largest size in parts of a quadrant.
    regions: the things' regions; drawn when empty.
  """
  width, height = pick(rng, _CANVASES)
  background, colors = _backdrop(rng)
  if not shapes:
    if distinct_shapes:
      shapes = draw_some(rng, SHAPES, count)
    else:
      shapes = [pick(rng, SHAPES) for _ in range(count)]
  if distinct_colors:
    inks = draw_some(rng, colors, count)
  else:
    inks = [pick(rng, colors) for _ in range(count)]
  if not regions:
    if count == 1 and chance(rng, 0.55):
      regions = ["center"]
    else:
      regions = draw_some(rng, CORNERS, count)
  things = []
  for i in range(count):
    low, high = scales[i] if scales else (0.7, 0.92)
    if regions[i] == "center" and not scales:
      high = 1.2
    size = round(min(width, height) / 2 * (low + (high - low) * rng.random()))
    left, top = _place(rng, regions[i], size, width, height)
    rgb = _tint(rng, _INKS[inks[i]])
    things.append(Thing(shapes[i], inks[i], regions[i], left, top, size, rgb))
  # One order a scene, since the order of drawing cannot be seen.
  things.sort(key=lambda thing: REGIONS.index(thing.region))
  return Layout(width, height, background, tuple(things))


def make_sign(rng: np.random.Generator, word: str | None = None) -> Sign:
  """A random sign, of the given word where there is one."""
  width, height = pick(rng, _SIGN_CANVASES)
  background, colors = _backdrop(rng)
  color = pick(rng, colors)
  word = word or pick(rng, WORDS)
  dot = (width // 20, pick(rng, (width // 20, width // 16)))
  letter, gap, tall = 5 * dot[0], dot[0], 7 * dot[1]
  across = len(word) * letter + (len(word) - 1) * gap
  left = (width - across) // 2 + int(rng.integers(-1, 2))
  top = (height - tall) // 2 + int(rng.integers(-2, 3))
  edge = [int(n) for n in rng.integers(2, 5, size=4)]
  panel = (
    max(0, left - edge[0]),
    max(0, top - edge[1]),
    min(width - 1, left + across - 1 + edge[2]),
    min(height - 1, top + tall - 1 + edge[3]),
  )
  rgb = _tint(rng, _INKS[color])
  ink = _INKS["black"] if color in ("white", "yellow", "orange") else _INKS["white"]
  return Sign(width, height, background, word, color, panel, rgb, ink, left, top, dot)


def make_chart(rng: np.random.Generator, count: int | None = None) -> Chart:
  """A random bar chart: bars of different values and colours."""
  width, height = pick(rng, _CHART_CANVASES)
  background, colors = _backdrop(rng)
  count = count or int(rng.integers(2, 4))
  inks = draw_some(rng, colors, count)
  values = draw_some(rng, range(1, len(LEVELS) + 1), count)
  margin = width // 16
  slot = (width - 2 * margin) / count
  bars = []
  for i in range(count):
    wide = slot * (0.6 + 0.3 * rng.random())
    left = round(margin + i * slot + (slot - wide) / 2)
    bars.append(
      Bar(inks[i], values[i], left, round(left + wide) - 1, _tint(rng, _INKS[inks[i]]))
    )
  unit = (height - 6) // len(LEVELS)
  base = height - 1 - int(rng.integers(1, 1 + height // 16))
  tone = sum(background) // 3
  shade = 28 if tone < 100 else -28
  grid = tuple(channel + shade for channel in background)
  return Chart(width, height, background, tuple(bars), base, unit, grid)


def side_of(one: Thing, two: Thing) -> str | None:
  """The side of `two` on which `one` is; None for diagonal neighbours."""
  if one.region == two.region or "center" in (one.region, two.region):
    return None
  row, column = one.region.split()
  other_row, other_column = two.region.split()
  if row == other_row:
    return column
  if column == other_column:
    return "above" if row == "top" else "below"
  return None


def nudge(rng: np.random.Generator, scene: Scene) -> Scene:
  """Nearly the same scene: other tints, and things moved by up to a pixel."""
  background = _tint(rng, scene.background, 4)
  if isinstance(scene, Sign):
    return dataclasses.replace(
      scene, background=background, rgb=_tint(rng, scene.rgb, 4)
    )
  if isinstance(scene, Chart):
    bars = tuple(
      dataclasses.replace(bar, rgb=_tint(rng, bar.rgb, 4)) for bar in scene.bars
    )
    return dataclasses.replace(scene, background=background, bars=bars)
  moves = [
    (x, y)
    for x, y in itertools.product((-1, 0, 1), repeat=2)
    if all(
      0 <= thing.left + x <= scene.width - thing.size
      and 0 <= thing.top + y <= scene.height - thing.size
      for thing in scene.things
    )
  ]
  x, y = pick(rng, moves)
  things = tuple(
    dataclasses.replace(
      thing, left=thing.left + x, top=thing.top + y, rgb=_tint(rng, thing.rgb, 4)
    )
    for thing in scene.things
  )
  return dataclasses.replace(scene, background=background, things=things)


def _backdrop(rng: np.random.Generator) -> tuple[RGB, list[str]]:
  background, unseen = pick(rng, _BACKDROPS)
  return _tint(rng, background), [color for color in COLORS if color not in unseen]


def _tint(rng: np.random.Generator, rgb: RGB, most: int = _TINT) -> RGB:
  red, green, blue = rng.integers(-most, most + 1, size=3).tolist()
  return rgb[0] + red, rgb[1] + green, rgb[2] + blue


def _place(
  rng: np.random.Generator, region: str, size: int, width: int, height: int
) -> tuple[int, int]:
  """Upper left corner of a square that stays inside its region."""
  wide, tall = width // 2, height // 2
  column = width // 4 if region == "center" else wide * ("right" in region)
  row = height // 4 if region == "center" else tall * ("bottom" in region)
  left = column + _slack(rng, wide - size)
  top = row + _slack(rng, tall - size)
  return left, top


def _slack(rng: np.random.Generator, slack: int) -> int:
  """An offset that keeps well away from where the next region begins."""
  if slack < 0:
    return slack // 2
  return int(rng.integers(slack // 4, slack - slack // 4 + 1))
