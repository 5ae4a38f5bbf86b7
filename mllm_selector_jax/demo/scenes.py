"""Random scenes: the content of drawn images, as data.

A scene holds every number that its image depends on, in pixels, so that equal scenes
have equal images. `held_out` divides all scenes, and all questions without a scene,
into two fixed sides: evaluation uses one, pools and captions the other.
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

# Values from 18 to 240 stay within 0 to 255 after the changes of `_tint` and `nudge`.
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
# Backgrounds, each with the colours that cannot be seen on it.
_BACKDROPS: tuple[tuple[RGB, tuple[str, ...]], ...] = (
  ((222, 222, 216), ("white",)),
  ((52, 52, 58), ("black",)),
  ((168, 196, 222), ("white",)),
  ((212, 194, 156), ("yellow", "white")),
  ((66, 92, 74), ("black", "green")),
  ((134, 134, 134), ()),
)
# Width and height in pixels. A model has to pad the oblong ones.
_CANVASES = (*((32, 32), (64, 64), (48, 48)) * 3, (64, 48), (48, 64))
_SIGN_CANVASES = ((64, 64), (64, 64), (48, 48), (64, 48))
_CHART_CANVASES = ((32, 32), (64, 64), (48, 48), (64, 56))
_TINT = 10  # the maximum by which a channel differs from the value of its colour


@dataclasses.dataclass(frozen=True)
class Thing:
  """A coloured shape; `left`, `top` and `size` are those of its bounding square."""

  shape: str
  color: str
  region: str
  left: int
  top: int
  size: int
  rgb: RGB


@dataclasses.dataclass(frozen=True, repr=False)
class SceneLayout:
  """One to four things, each in a quadrant of its own, or one in the centre."""

  width: int
  height: int
  background: RGB
  things: tuple[Thing, ...]

  source = "scenes"

  def __repr__(self) -> str:
    # `held_out` hashes this text, so that it must stay as it is: the demo's files and
    # the shipped base follow from it.
    return (
      f"Layout(width={self.width!r}, height={self.height!r},"
      f" background={self.background!r}, things={self.things!r})"
    )


@dataclasses.dataclass(frozen=True)
class Sign:
  """A coloured panel with a word; `dot` is the width and height of a glyph's pixel."""

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
  """A bar of a chart; `value` is its height in levels, from 1 to 4."""

  color: str
  value: int
  left: int
  right: int
  rgb: RGB


@dataclasses.dataclass(frozen=True)
class Chart:
  """Two or three bars of different values that stand on the row `base`, with a grid."""

  width: int
  height: int
  background: RGB
  bars: tuple[Bar, ...]
  base: int
  unit: int
  grid: RGB

  source = "charts"


Scene = SceneLayout | Sign | Chart


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
  """Draws one of the items."""
  return items[int(rng.integers(len(items)))]


def draw_some(
  rng: np.random.Generator, items: Sequence[Item], count: int
) -> list[Item]:
  """Draws `count` different items, in random order."""
  return [items[int(i)] for i in rng.permutation(len(items))[:count]]


def chance(rng: np.random.Generator, probability: float) -> bool:
  """Returns True with the given probability."""
  return bool(rng.random() < probability)


def to_json(scene: Scene) -> dict[str, Any]:
  """Returns a scene as a dict that JSON can represent."""
  return {"source": scene.source, **dataclasses.asdict(scene)}


def held_out(content: Hashable, share: int = 4) -> bool:
  """Returns whether a scene or a text is reserved for evaluation; one in `share` is.

  This depends only on a hash of the content, so that no seed and no option can bring a
  scene of the evaluation into a pool.
  """
  return hashlib.sha256(repr(content).encode()).digest()[0] % share == 0


def make_on_side(make: Callable[[], Item], held: bool, share: int = 4) -> Item:
  """Makes scenes or texts until one is on the given side of `held_out`."""
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
) -> SceneLayout:
  """Draws a random layout.

  Args:
    rng: the source of randomness.
    count: the number of things, 1 to 4.
    distinct_shapes, distinct_colors: whether all shapes, or colours, are different.
    shapes: the shapes of the things; drawn if empty.
    scales: the minimum and maximum size of each thing, relative to the side of a
      quadrant.
    regions: the regions of the things; drawn if empty.
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
  # Things have a fixed order, since the order in which they are drawn cannot be seen.
  things.sort(key=lambda thing: REGIONS.index(thing.region))
  return SceneLayout(width, height, background, tuple(things))


def make_sign(rng: np.random.Generator, word: str | None = None) -> Sign:
  """Draws a random sign; the word is drawn too, unless it is given."""
  width, height = pick(rng, _SIGN_CANVASES)
  background, colors = _backdrop(rng)
  color = pick(rng, colors)
  word = word or pick(rng, WORDS)
  dot = (width // 20, pick(rng, (width // 20, width // 16)))
  letter, gap, text_height = 5 * dot[0], dot[0], 7 * dot[1]
  text_width = len(word) * letter + (len(word) - 1) * gap
  left = (width - text_width) // 2 + int(rng.integers(-1, 2))
  top = (height - text_height) // 2 + int(rng.integers(-2, 3))
  edge = [int(n) for n in rng.integers(2, 5, size=4)]
  panel = (
    max(0, left - edge[0]),
    max(0, top - edge[1]),
    min(width - 1, left + text_width - 1 + edge[2]),
    min(height - 1, top + text_height - 1 + edge[3]),
  )
  rgb = _tint(rng, _INKS[color])
  ink = _INKS["black"] if color in ("white", "yellow", "orange") else _INKS["white"]
  return Sign(width, height, background, word, color, panel, rgb, ink, left, top, dot)


def make_chart(rng: np.random.Generator, count: int | None = None) -> Chart:
  """Draws a random chart, with bars of different values and colours."""
  width, height = pick(rng, _CHART_CANVASES)
  background, colors = _backdrop(rng)
  count = count or int(rng.integers(2, 4))
  inks = draw_some(rng, colors, count)
  values = draw_some(rng, range(1, len(LEVELS) + 1), count)
  margin = width // 16
  slot = (width - 2 * margin) / count
  bars = []
  for i in range(count):
    bar_width = slot * (0.6 + 0.3 * rng.random())
    left = round(margin + i * slot + (slot - bar_width) / 2)
    right = round(left + bar_width) - 1
    bars.append(Bar(inks[i], values[i], left, right, _tint(rng, _INKS[inks[i]])))
  unit = (height - 6) // len(LEVELS)
  base = height - 1 - int(rng.integers(1, 1 + height // 16))
  tone = sum(background) // 3
  shade = 28 if tone < 100 else -28
  grid = tuple(channel + shade for channel in background)
  return Chart(width, height, background, tuple(bars), base, unit, grid)


def side_of(thing: Thing, other: Thing) -> str | None:
  """Returns the side of `other` on which `thing` is; None for diagonal neighbours."""
  if thing.region == other.region or "center" in (thing.region, other.region):
    return None
  row, column = thing.region.split()
  other_row, other_column = other.region.split()
  if row == other_row:
    return column
  if column == other_column:
    return "above" if row == "top" else "below"
  return None


def nudge(rng: np.random.Generator, scene: Scene) -> Scene:
  """Returns nearly the same scene, with other tints and moved by up to a pixel."""
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
  """Draws a background, and returns it with the colours that can be seen on it."""
  background, invisible = pick(rng, _BACKDROPS)
  return _tint(rng, background), [color for color in COLORS if color not in invisible]


def _tint(rng: np.random.Generator, rgb: RGB, limit: int = _TINT) -> RGB:
  """Changes each channel at random, by at most `limit`."""
  red, green, blue = rng.integers(-limit, limit + 1, size=3).tolist()
  return rgb[0] + red, rgb[1] + green, rgb[2] + blue


def _place(
  rng: np.random.Generator, region: str, size: int, width: int, height: int
) -> tuple[int, int]:
  """Draws the upper left corner of a square inside its region."""
  half_width, half_height = width // 2, height // 2
  column = width // 4 if region == "center" else half_width * ("right" in region)
  row = height // 4 if region == "center" else half_height * ("bottom" in region)
  left = column + _slack(rng, half_width - size)
  top = row + _slack(rng, half_height - size)
  return left, top


def _slack(rng: np.random.Generator, slack: int) -> int:
  """Draws an offset that leaves a distance to the neighbouring regions."""
  if slack < 0:
    return slack // 2
  return int(rng.integers(slack // 4, slack - slack // 4 + 1))
