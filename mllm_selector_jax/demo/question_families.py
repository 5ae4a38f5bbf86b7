"""The families of questions: each makes scenes and asks questions about them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mllm_selector_jax.demo.language import (
  COLORS,
  CORNERS,
  COUNTS,
  FACT_WORDINGS,
  FACTS,
  LEAD_INS,
  LEVELS,
  PLURALS,
  QUESTIONS,
  REGIONS,
  SHAPES,
  SIDES,
  WORDS,
  a,
)
from mllm_selector_jax.demo.scenes import (
  Chart,
  Scene,
  SceneLayout,
  Sign,
  Thing,
  chance,
  draw_some,
  make_chart,
  make_layout,
  make_sign,
  pick,
  side_of,
)


class Turn(NamedTuple):
  """A question, its right answer, and the options that a wrong answer is drawn from."""

  question: str
  answer: str
  options: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Task:
  """A family of questions.

  Attributes:
    make_scene: draws a scene that the family can ask about; None if the family asks
      without an image.
    ask: draws a question about any scene, or returns None if it has no question.
    answers: all answers that may be right.
    hint: draws a question that gives its answer away; None if there are none.
  """

  make_scene: Callable[[np.random.Generator], Scene] | None
  ask: Callable[[np.random.Generator, Scene | None], Turn | None]
  answers: tuple[str, ...]
  hint: Callable[[np.random.Generator, Scene], Turn | None] | None = None


def _wording(rng: np.random.Generator, kind: str, **words: str) -> str:
  return pick(rng, QUESTIONS[kind]).format(**words)


def _unique(things: Sequence[Thing], field: str) -> list[Thing]:
  """Returns the things whose value of a field no other thing has."""
  values = [getattr(thing, field) for thing in things]
  return [thing for thing in things if values.count(getattr(thing, field)) == 1]


def _make_few(rng: np.random.Generator, **distinct: bool) -> SceneLayout:
  return make_layout(rng, pick(rng, (1, 1, 2, 2, 2, 3, 3, 4)), **distinct)


# Shape and colour.


def _scene_of_shape(rng: np.random.Generator) -> Scene:
  return _make_few(rng, distinct_colors=True)


def _ask_shape(rng: np.random.Generator, scene: Scene | None) -> Turn | None:
  if not isinstance(scene, SceneLayout):
    return None
  if len(scene.things) == 1 and chance(rng, 0.5):
    question = _wording(rng, "shape alone")
    return Turn(question, scene.things[0].shape, SHAPES)
  known = _unique(scene.things, "color")
  if known and chance(rng, 0.75):
    thing = pick(rng, known)
    question = _wording(rng, "shape of color", color=thing.color)
  else:
    thing = pick(rng, scene.things)
    question = _wording(rng, "shape in region", region=thing.region)
  return Turn(question, thing.shape, SHAPES)


def _hint_shape(rng: np.random.Generator, scene: Scene) -> Turn | None:
  if not isinstance(scene, SceneLayout):
    return None
  thing = pick(rng, scene.things)
  question = _wording(rng, "shape hint", color=thing.color, shape=thing.shape)
  return Turn(question, thing.shape, SHAPES)


def _scene_of_color(rng: np.random.Generator) -> Scene:
  if chance(rng, 0.15):
    return make_sign(rng)
  return _make_few(rng, distinct_shapes=True)


def _ask_color(rng: np.random.Generator, scene: Scene | None) -> Turn | None:
  if isinstance(scene, Sign):
    return Turn(_wording(rng, "color of sign"), scene.color, COLORS)
  if not isinstance(scene, SceneLayout):
    return None
  if len(scene.things) == 1 and chance(rng, 0.5):
    return Turn(_wording(rng, "color alone"), scene.things[0].color, COLORS)
  known = _unique(scene.things, "shape")
  if known and chance(rng, 0.75):
    thing = pick(rng, known)
    question = _wording(rng, "color of shape", shape=thing.shape)
  else:
    thing = pick(rng, scene.things)
    question = _wording(rng, "color in region", region=thing.region)
  return Turn(question, thing.color, COLORS)


def _hint_color(rng: np.random.Generator, scene: Scene) -> Turn | None:
  if not isinstance(scene, SceneLayout):
    return None
  thing = pick(rng, scene.things)
  question = _wording(rng, "color hint", color=thing.color, shape=thing.shape)
  return Turn(question, thing.color, COLORS)


# Existence and count.


def _scene_of_existence(rng: np.random.Generator) -> Scene:
  return make_chart(rng) if chance(rng, 0.1) else _make_few(rng)


def _ask_existence(rng: np.random.Generator, scene: Scene | None) -> Turn | None:
  there = chance(rng, 0.5)
  if isinstance(scene, Chart):
    colors = [bar.color for bar in scene.bars]
    color = pick(rng, [c for c in COLORS if (c in colors) == there])
    thing = f"{color} bar"
  elif isinstance(scene, SceneLayout):
    thing = _name_thing(rng, scene, there)
  else:
    return None
  question = _wording(rng, "existence", thing=a(thing))
  return Turn(question, "yes" if there else "no", ("yes", "no"))


def _name_thing(rng: np.random.Generator, scene: SceneLayout, there: bool) -> str:
  """Names a thing by shape, colour or both, which is in the scene or is not."""
  pairs = [(thing.color, thing.shape) for thing in scene.things]
  kind = int(rng.integers(3))
  if kind == 0:
    shapes = [shape for _, shape in pairs]
    return pick(rng, [s for s in SHAPES if (s in shapes) == there])
  if kind == 1:
    colors = [color for color, _ in pairs]
    return pick(rng, [c for c in COLORS if (c in colors) == there]) + " object"
  # A missing pair starts from one that is there, and its colour or shape is changed.
  color, shape = pick(rng, pairs)
  while not there and (color, shape) in pairs:
    if chance(rng, 0.5):
      color = pick(rng, COLORS)
    else:
      shape = pick(rng, SHAPES)
  return f"{color} {shape}"


def _hint_existence(rng: np.random.Generator, scene: Scene) -> Turn | None:
  if not isinstance(scene, SceneLayout):
    return None
  there = chance(rng, 0.5)
  bare = _name_thing(rng, scene, there)
  kind = f"existence hint {'yes' if there else 'no'}"
  question = _wording(rng, kind, bare=bare, thing=a(bare))
  return Turn(question, "yes" if there else "no", ("yes", "no"))


def _scene_of_count(rng: np.random.Generator) -> Scene:
  if chance(rng, 0.12):
    return make_chart(rng)
  alike = int(rng.integers(1, 5))
  others = int(rng.integers(0, 5 - alike))
  first, *rest = draw_some(rng, SHAPES, 1 + others)
  return make_layout(rng, alike + others, shapes=[first] * alike + rest)


def _ask_count(rng: np.random.Generator, scene: Scene | None) -> Turn | None:
  if isinstance(scene, Chart):
    things, count = "bars", len(scene.bars)
  elif isinstance(scene, SceneLayout):
    shapes = [thing.shape for thing in scene.things]
    commonest = max(sorted(set(shapes)), key=shapes.count)
    if chance(rng, 0.4):
      things, count = "objects", len(shapes)
    else:
      things, count = PLURALS[commonest], shapes.count(commonest)
  else:
    return None
  question = _wording(rng, "count", things=things)
  return Turn(question, COUNTS[count - 1], COUNTS)


# Positions and sizes.


def _scene_of_position(rng: np.random.Generator) -> Scene:
  if chance(rng, 0.35):
    return make_layout(rng, 1)
  return make_layout(
    rng, int(rng.integers(2, 5)), distinct_shapes=True, distinct_colors=True
  )


def _ask_position(rng: np.random.Generator, scene: Scene | None) -> Turn | None:
  if not isinstance(scene, SceneLayout):
    return None
  by = pick(rng, ("shape", "color"))
  known = _unique(scene.things, by)
  if not known:
    return None
  thing = pick(rng, known)
  name = thing.shape if by == "shape" else f"{thing.color} object"
  # Of several things none is in the centre, so it would be an implausible answer.
  options = REGIONS if len(scene.things) == 1 else CORNERS
  return Turn(_wording(rng, "position", thing=name), thing.region, options)


def _scene_of_relation(rng: np.random.Generator) -> Scene:
  across = chance(rng, 0.5)
  side = pick(rng, ("top", "bottom") if across else ("left", "right"))
  pair = [region for region in CORNERS if side in region]
  others = [region for region in CORNERS if side not in region]
  regions = pair + draw_some(rng, others, int(rng.integers(0, 2)))
  return make_layout(rng, len(regions), distinct_shapes=True, regions=regions)


def _ask_relation(rng: np.random.Generator, scene: Scene | None) -> Turn | None:
  if not isinstance(scene, SceneLayout):
    return None
  known = _unique(scene.things, "shape")
  pairs = [
    (thing, other, side)
    for thing in known
    for other in known
    if (side := side_of(thing, other)) is not None
  ]
  if not pairs:
    return None
  thing, other, side = pick(rng, pairs)
  question = _wording(rng, "relation", shape=thing.shape, other=other.shape)
  return Turn(question, side, SIDES)


def _scene_of_size(rng: np.random.Generator) -> Scene:
  count = int(rng.integers(2, 5))
  large, small = (0.88, 0.98), (0.44, 0.56)
  odd, others = (large, small) if chance(rng, 0.65) else (small, large)
  scales = [odd] + [others] * (count - 1)
  return make_layout(
    rng, count, distinct_shapes=True, distinct_colors=True, scales=scales
  )


def _ask_size(rng: np.random.Generator, scene: Scene | None) -> Turn | None:
  if not isinstance(scene, SceneLayout) or len(scene.things) < 2:
    return None
  things = sorted(scene.things, key=lambda thing: thing.size)
  large = things[-1].size > 1.4 * things[-2].size
  small = things[1].size > 1.4 * things[0].size
  if not large and not small:
    return None
  # The shape of a small thing can hardly be seen, so only its colour is asked for.
  if large and chance(rng, 0.6):
    return Turn(_wording(rng, "shape of largest"), things[-1].shape, SHAPES)
  thing, size = (things[-1], "largest") if large else (things[0], "smallest")
  return Turn(_wording(rng, "color of size", size=size), thing.color, COLORS)


# Signs, charts, and questions that need no image.


def _ask_text(rng: np.random.Generator, scene: Scene | None) -> Turn | None:
  if not isinstance(scene, Sign):
    return None
  return Turn(_wording(rng, "text"), scene.word, WORDS)


def _ask_extreme(rng: np.random.Generator, scene: Scene | None) -> Turn | None:
  if not isinstance(scene, Chart):
    return None
  extreme, choose = pick(rng, (("tallest", max), ("shortest", min)))
  bar = choose(scene.bars, key=lambda bar: bar.value)
  # A plausible wrong answer is another bar of the chart.
  options = tuple(bar.color for bar in scene.bars)
  return Turn(_wording(rng, "extreme bar", extreme=extreme), bar.color, options)


def _ask_value(rng: np.random.Generator, scene: Scene | None) -> Turn | None:
  if not isinstance(scene, Chart):
    return None
  bar = pick(rng, scene.bars)
  return Turn(_wording(rng, "value", color=bar.color), LEVELS[bar.value - 1], LEVELS)


def _ask_fact(rng: np.random.Generator, scene: Scene | None) -> Turn | None:
  del scene  # the question does not depend on it
  # Opposites are drawn more often, since each of their answers has only one fact.
  kind = pick(rng, ("opposite", "opposite", "colored", "after", "before"))
  asked, answer = pick(rng, FACTS[kind])
  question = pick(rng, LEAD_INS) + pick(rng, FACT_WORDINGS[kind]).format(*asked)
  return Turn(question, answer, tuple(answer for _, answer in FACTS[kind]))


_FACT_ANSWERS = tuple(sorted({ans for facts in FACTS.values() for _, ans in facts}))

TASKS = {
  "shape": Task(_scene_of_shape, _ask_shape, SHAPES, _hint_shape),
  "color": Task(_scene_of_color, _ask_color, COLORS, _hint_color),
  "existence": Task(
    _scene_of_existence, _ask_existence, ("yes", "no"), _hint_existence
  ),
  "count": Task(_scene_of_count, _ask_count, COUNTS),
  "position": Task(_scene_of_position, _ask_position, REGIONS),
  "relation": Task(_scene_of_relation, _ask_relation, SIDES),
  "size": Task(_scene_of_size, _ask_size, SHAPES + COLORS),
  "text": Task(make_sign, _ask_text, WORDS),
  "extreme": Task(make_chart, _ask_extreme, COLORS),
  "value": Task(make_chart, _ask_value, LEVELS),
  "fact": Task(None, _ask_fact, _FACT_ANSWERS),
}
