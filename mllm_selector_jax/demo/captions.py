"""Captions of drawn scenes, on which the tiny base is pretrained.

They mostly describe regions, colours and shapes, say which things are missing and how
many there are; some are about signs, bars, sides and sizes. No wording of a question
occurs in them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mllm_selector_jax.demo.drawing import draw
from mllm_selector_jax.demo.drawn_pool import Progress, write_image, write_records
from mllm_selector_jax.demo.language import (
  CAPTION_PROMPTS,
  CAPTIONS,
  COLORS,
  NUMBERS,
  PLURALS,
  SHAPES,
  SIDE_WORDS,
  a,
  listing,
)
from mllm_selector_jax.demo.scenes import (
  Chart,
  Scene,
  SceneLayout,
  Sign,
  Thing,
  chance,
  make_chart,
  make_layout,
  make_on_side,
  make_sign,
  pick,
  side_of,
)
from mllm_selector_jax.types import InputError

_CAPTION_STREAM = 3
_SIGNS, _CHARTS = 0.10, 0.10  # shares of the images; all others are layouts
# The topics of sentences about a layout, with their weights.
_TOPICS = (
  ("things", 0.10),
  ("region", 0.20),
  ("color", 0.16),
  ("shape", 0.16),
  ("where", 0.05),
  ("absent", 0.09),
  ("present", 0.09),
  ("count", 0.10),
  ("relation", 0.02),
  ("size", 0.03),
)


def caption_examples(rows: int, seed: int) -> Iterator[tuple[Image.Image, str]]:
  """Yields the images and captions that `draw_captions` would write."""
  for scene, caption in caption_scenes(rows, seed):
    yield draw(scene), caption


def draw_captions(
  folder: Path, rows: int, seed: int, progress: Progress | None = None
) -> dict[str, int]:
  """Writes `captions.json` (LLaVA records) and `images/` into a folder.

  Returns:
    The counts "rows" and "images".
  """
  folder = Path(folder)
  records = []
  for row, (scene, caption) in enumerate(caption_scenes(rows, seed)):
    image = f"{scene.source}/{row:05d}.png"
    write_image(folder / "images" / image, draw(scene))
    prompt = CAPTION_PROMPTS[row % len(CAPTION_PROMPTS)]
    records.append(
      {
        "id": f"caption-{row:06d}",
        "image": image,
        "conversations": [
          {"from": "human", "value": f"<image>\n{prompt}"},
          {"from": "gpt", "value": caption},
        ],
      }
    )
    if progress is not None and (row % 100 == 99 or row + 1 == rows):
      progress(row + 1, rows)
  write_records(folder / "captions.json", records)
  return {"rows": rows, "images": rows}


def caption_scenes(rows: int, seed: int) -> Iterator[tuple[Scene, str]]:
  """Yields random scenes that are not reserved for evaluation, with captions.

  Raises:
    InputError: `rows` is below 1, or `seed` below 0.
  """
  if rows < 1 or seed < 0:
    raise InputError(f"captions: rows is {rows}, at least 1; seed {seed}, at least 0.")
  for row in range(rows):
    rng = np.random.default_rng([seed, _CAPTION_STREAM, row])
    scene = make_on_side(lambda rng=rng: _make_scene(rng), held=False)
    yield scene, _caption(rng, scene)


def _make_scene(rng: np.random.Generator) -> Scene:
  kind = rng.random()
  if kind < _SIGNS:
    return make_sign(rng)
  if kind < _SIGNS + _CHARTS:
    return make_chart(rng)
  count = int(rng.integers(1, 5))
  if count > 1 and chance(rng, 0.25):
    # Things of one shape, for captions that count.
    return make_layout(rng, count, shapes=[pick(rng, SHAPES)] * count)
  if count > 1 and chance(rng, 0.2):
    scales = [(0.88, 0.98)] + [(0.44, 0.6)] * (count - 1)
    return make_layout(rng, count, scales=scales)
  return make_layout(rng, count)


def _caption(rng: np.random.Generator, scene: Scene) -> str:
  """Writes one to four different sentences about a scene."""
  tell = {Sign: _tell_sign, Chart: _tell_chart, SceneLayout: _tell_layout}[type(scene)]
  count = 1 if isinstance(scene, Sign) else int(rng.integers(1, 5))
  sentences = [tell(rng, scene) for _ in range(count)]
  return " ".join(dict.fromkeys(sentences))


def _wording(rng: np.random.Generator, kind: str, **words: str) -> str:
  return pick(rng, CAPTIONS[kind]).format(**words)


def _name(thing: Thing) -> str:
  return f"{thing.color} {thing.shape}"


def _tell_layout(rng: np.random.Generator, scene: SceneLayout) -> str:
  things = scene.things
  thing = pick(rng, things)
  edges = np.cumsum([share for _, share in _TOPICS])
  topic = _TOPICS[int(np.searchsorted(edges, rng.random() * edges[-1]))][0]
  shapes, colors = [t.shape for t in things], [t.color for t in things]
  if topic == "region":
    return _wording(rng, "region", region=thing.region, thing=a(_name(thing)))
  if topic == "color" and shapes.count(thing.shape) == 1:
    return _wording(rng, "color", shape=thing.shape, color=thing.color)
  if topic == "shape" and colors.count(thing.color) == 1:
    return _wording(rng, "shape", color=thing.color, shape=a(thing.shape))
  if topic == "where" and shapes.count(thing.shape) == 1:
    return _wording(
      rng, "where", region=thing.region, shape=thing.shape, thing=a(_name(thing))
    )
  if topic == "absent":
    missing = [s for s in SHAPES if s not in shapes]
    missing += [f"{c} object" for c in COLORS if c not in colors]
    return _wording(rng, "none", bare=pick(rng, missing))
  if topic == "present":
    bare = pick(rng, (thing.shape, f"{thing.color} object", _name(thing)))
    return _wording(rng, "some", thing=a(bare))
  if topic == "count":
    return _tell_count(rng, shapes)
  if topic == "relation":
    pairs = [(x, y, s) for x in things for y in things if (s := side_of(x, y))]
    if pairs:
      thing, other, side = pick(rng, pairs)
      thing, other = a(_name(thing)), a(_name(other))
      return _wording(rng, "relation", thing=thing, side=SIDE_WORDS[side], other=other)
  if topic == "size" and len(things) > 1:
    *_, second, largest = sorted(things, key=lambda t: t.size)
    if largest.size > 1.4 * second.size:
      bare, thing = _name(largest), a(_name(largest))
      return _wording(rng, "size", size="large", bare=bare, thing=thing)
  kind = "one thing" if len(things) == 1 else "things"
  return _wording(rng, kind, things=listing([a(_name(t)) for t in things]))


def _tell_count(rng: np.random.Generator, shapes: list[str]) -> str:
  if chance(rng, 0.5):
    singular, plural, count = "object", "objects", len(shapes)
  else:
    singular = pick(rng, shapes)
    plural, count = PLURALS[singular], shapes.count(singular)
  if count == 1:
    return _wording(rng, "count one", things=singular)
  return _wording(rng, "count", count=NUMBERS[count - 1], things=plural)


def _tell_sign(rng: np.random.Generator, scene: Sign) -> str:
  kind = "word" if chance(rng, 0.7) else "sign"
  return _wording(rng, kind, color=scene.color, word=scene.word)


def _tell_chart(rng: np.random.Generator, scene: Chart) -> str:
  colors = [bar.color for bar in scene.bars]
  if chance(rng, 0.5):
    count = NUMBERS[len(colors) - 1]
    return _wording(rng, "bars", count=count, colors=listing(colors))
  heights = ("low", "low", "high", "high")
  levels = [f"the {bar.color} bar is {heights[bar.value - 1]}" for bar in scene.bars]
  return _wording(rng, "levels", levels=listing(levels))
