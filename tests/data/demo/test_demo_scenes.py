"""Scenes and their pixels: inside the canvas, apart, and legible when small."""

import demo_oracle
import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.demo import drawing, language, scenes
from mllm_selector_jax.demo.question_families import TASKS

COUNT = 300


def some_layouts(seed=0, **options):
  rng = np.random.default_rng(seed)
  return [scenes.make_layout(rng, 1 + i % 4, **options) for i in range(COUNT)]


def shrink(image):
  """The picture as a 32 x 32 model sees it."""
  side = max(image.size)
  square = Image.new("RGB", (side, side), (122, 116, 104))
  square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
  return square.resize((32, 32), Image.Resampling.BICUBIC)


def nearest_color(rgb):
  inks = {
    "red": (215, 40, 40),
    "green": (40, 165, 60),
    "blue": (45, 75, 215),
    "yellow": (236, 216, 45),
    "orange": (238, 130, 25),
    "purple": (140, 50, 175),
    "black": (18, 18, 18),
    "white": (240, 240, 240),
  }
  return min(inks, key=lambda name: sum(abs(a - b) for a, b in zip(inks[name], rgb)))  # noqa: B905


def test_things_lie_inside_and_apart():
  for scene in some_layouts():
    taken = np.zeros((scene.height, scene.width), int)
    for thing in scene.things:
      assert thing.left >= 0 and thing.top >= 0
      box = taken[
        thing.top : thing.top + thing.size, thing.left : thing.left + thing.size
      ]
      assert box.shape == (thing.size, thing.size)
      box += 1
    assert taken.max() == 1


def test_distinct_means_distinct():
  for scene in some_layouts(distinct_shapes=True, distinct_colors=True):
    assert len({thing.shape for thing in scene.things}) == len(scene.things)
    assert len({thing.color for thing in scene.things}) == len(scene.things)


def test_regions_agree_with_coordinates():
  for scene in some_layouts(1):
    state = scenes.to_json(scene)
    for thing in state["things"]:
      assert demo_oracle.region_of(thing, state) == thing["region"]


@pytest.mark.parametrize("seed", range(2))
def test_colors_can_be_told_at_the_model_size(seed):
  for scene in some_layouts(seed):
    small = shrink(drawing.draw(scene))
    side = max(scene.width, scene.height)
    for thing in scene.things:
      if thing.shape == "ring":
        continue
      x = thing.left + thing.size / 2 + (side - scene.width) / 2
      y = thing.top + thing.size * 0.6 + (side - scene.height) / 2
      pixel = small.getpixel((int(x * 32 / side), int(y * 32 / side)))
      assert nearest_color(pixel) == thing.color, thing


def test_bars_stand_as_high_as_their_value():
  rng = np.random.default_rng(3)
  for _ in range(100):
    chart = scenes.make_chart(rng)
    pixels = np.array(drawing.draw(chart))
    for bar in chart.bars:
      column = pixels[: chart.base, (bar.left + bar.right) // 2]
      height = (column == bar.rgb).all(-1).sum()
      assert height == bar.value * chart.unit
    values = [bar.value for bar in chart.bars]
    assert len(set(values)) == len(values)
    assert 0 <= chart.base - 4 * chart.unit


def test_words_are_whole_and_no_two_look_alike():
  rng = np.random.default_rng(4)
  seen = set()
  for word in language.WORDS:
    for _ in range(20):
      sign = scenes.make_sign(rng, word)
      left, top, right, bottom = sign.panel
      assert 0 <= left <= sign.left and 0 <= top <= sign.top
      across = (6 * len(word) - 1) * sign.dot[0]
      assert sign.left + across - 1 <= right < sign.width
      assert sign.top + 7 * sign.dot[1] - 1 <= bottom < sign.height
    ink = (np.array(drawing.draw(sign)) == sign.ink).all(-1)
    glyphs = ink[sign.top :: sign.dot[1], sign.left :: sign.dot[0]][:7, :17]
    seen.add(glyphs.tobytes())
  assert len(seen) == len(language.WORDS)


def test_different_scenes_are_different_images():
  rng = np.random.default_rng(5)
  made = {
    task.make_scene(rng)
    for task in TASKS.values()
    if task.make_scene
    for _ in range(40)
  }
  images = {drawing.draw(scene).tobytes() for scene in made}
  assert len(images) == len(made)


def test_a_nudged_scene_stays_nearly_the_same():
  rng = np.random.default_rng(6)
  for task in ("shape", "text", "value"):
    for _ in range(50):
      scene = TASKS[task].make_scene(rng)
      other = scenes.nudge(rng, scene)
      assert other != scene and other.source == scene.source
      if task == "shape":
        for before, after in zip(scene.things, other.things, strict=True):
          assert abs(before.left - after.left) <= 1
          assert 0 <= after.left <= other.width - after.size
          assert 0 <= after.top <= other.height - after.size
          assert (before.shape, before.color) == (after.shape, after.color)
      before, after = (np.array(shrink(drawing.draw(s)), float) for s in (scene, other))
      assert np.abs(before - after).mean() < 30


def test_one_scene_in_four_is_held_out():
  held = [scenes.held_out(scene) for scene in some_layouts(7) + some_layouts(8)]
  # Binomial with 600 draws: .25 +- four standard deviations.
  assert abs(np.mean(held) - 0.25) < 4 * (0.25 * 0.75 / 600) ** 0.5
