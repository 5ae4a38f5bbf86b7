"""Pictures with labels and captions, on which the tower of the real base is trained.

Half of them are the demo's scenes; the others are drawn here: more shapes and colours
at any place, and short texts in Pillow's own font. Labelled pictures of other sources
can be added from JSONL files. A picture has labels for the whole and, where it is
drawn, labels for places.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mllm_selector_jax.demo.captions import caption_scenes
from mllm_selector_jax.demo.drawing import draw
from mllm_selector_jax.demo.language import a, listing
from mllm_selector_jax.demo.scenes import Chart, SceneLayout, Sign, chance, pick

SIDE = 64  # pixels of a drawn canvas
INKS = {
  "red": (215, 40, 40), "green": (40, 160, 60), "blue": (45, 75, 215),
  "yellow": (236, 216, 45), "orange": (238, 130, 25), "purple": (140, 50, 175),
  "black": (12, 12, 12), "white": (245, 245, 245), "gray": (128, 128, 128),
  "brown": (135, 75, 30), "teal": (0, 130, 130), "pink": (250, 150, 190),
}  # fmt: skip
SHAPES = (
  "circle", "square", "rectangle", "triangle", "ellipse", "star", "pentagon", "ring",
  "cross", "diamond",
)  # fmt: skip
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
NUMBERS = ("no", "one", "two", "three", "four")

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class LabelledPicture:
  """A picture and what is known of it.

  Attributes:
    image: of any size.
    caption: one sentence or several.
    labels: of the whole picture.
    places: labels of boxes; left, top, right and bottom are shares of the sides. None
      if nothing is known of places.
    questions: pairs of question and short answer.
  """

  image: Image.Image
  caption: str
  labels: tuple[str, ...]
  places: tuple[tuple[Box, tuple[str, ...]], ...] | None
  questions: tuple[tuple[str, str], ...]


def draw_pictures(count: int, seed: int) -> Iterator[LabelledPicture]:
  """Draws pictures, alternately the demo's scenes and canvases; seeded one by one."""
  scenes = caption_scenes((count + 1) // 2, seed)
  for number in range(count):
    if number % 2 == 0:
      scene, caption = next(scenes)
      yield _label_scene(scene, caption)
    else:
      yield draw_canvas(np.random.default_rng([seed, 7, number]))


def read_labelled(path: Path, excluded: frozenset[str]) -> Iterator[LabelledPicture]:
  """Reads a JSONL file of other pictures, without those of excluded content.

  Each line has `image` (a path relative to the file), `caption`, `labels` and,
  optionally, `questions` (pairs of question and answer).

  Args:
    path: the file.
    excluded: of `hash_images`; pictures that must not be seen.
  """
  for line in path.read_text().splitlines():
    record = json.loads(line)
    picture = _read_flat(path.parent / record["image"])
    if _hash_pixels(picture) in excluded:
      continue
    questions = tuple((ask, answer) for ask, answer in record.get("questions", ()))
    yield LabelledPicture(
      picture, record["caption"], tuple(record["labels"]), None, questions
    )


def hash_images(folders: Sequence[Path]) -> frozenset[str]:
  """SHA-256 of the pixels of every file under these folders, whatever its format."""
  return frozenset(
    _hash_pixels(_read_flat(path))
    for folder in folders
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  )


def _hash_pixels(image: Image.Image) -> str:
  return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def _read_flat(path: Path) -> Image.Image:
  """Reads a picture as RGB; what is transparent becomes white."""
  with Image.open(path) as image:
    if image.mode in ("RGBA", "LA", "P"):
      image = image.convert("RGBA")
      ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
      image = Image.alpha_composite(ground, image)
    return image.convert("RGB")


def _label_scene(scene, caption: str) -> LabelledPicture:
  """Labels a scene of the demo with all that it holds."""
  width, height = scene.width, scene.height

  def box(left, top, right, bottom) -> Box:
    return left / width, top / height, right / width, bottom / height

  if isinstance(scene, SceneLayout):
    labels = [f"{NUMBERS[len(scene.things)]} things"]
    places = []
    for thing in scene.things:
      name = f"{thing.color} {thing.shape}"
      labels += [thing.color, thing.shape, name, f"{thing.region} {name}"]
      right, bottom = thing.left + thing.size, thing.top + thing.size
      place = box(thing.left, thing.top, right, bottom)
      places.append((place, (thing.color, thing.shape, name)))
  elif isinstance(scene, Sign):
    labels = [f"word {scene.word}", f"{scene.color} sign"]
    left, top, right, bottom = scene.panel
    places = [(box(left, top, right + 1, bottom + 1), (f"{scene.color} sign",))]
    dot_width, dot_height = scene.dot
    for place, letter in enumerate(scene.word.upper()):
      start = scene.left + place * 6 * dot_width
      end = start + 5 * dot_width
      low = scene.top + 7 * dot_height
      places.append((box(start, scene.top, end, low), (f"letter {letter}",)))
  else:
    assert isinstance(scene, Chart)
    labels = [f"{NUMBERS[len(scene.bars)]} bars"]
    places = []
    for bar in scene.bars:
      labels += [f"{bar.color} bar", f"{bar.color} bar {bar.value}"]
      top = scene.base - bar.value * scene.unit
      place = box(bar.left, top, bar.right + 1, scene.base)
      places.append((place, (f"{bar.color} bar", f"bar {bar.value}")))
  return LabelledPicture(draw(scene), caption, tuple(labels), tuple(places), ())


def draw_canvas(rng: np.random.Generator) -> LabelledPicture:
  """Draws up to four shapes, or a text, on a plain or noisy ground."""
  ground = pick(rng, tuple(INKS))
  if chance(rng, 0.5):
    pale = np.array(INKS[ground]) * 0.35 + 255 * 0.65
    colors, base = list(INKS), pale if ground != "black" else np.array((90, 90, 90))
  else:
    colors, base = [name for name in INKS if name != ground], np.array(INKS[ground])
  image = Image.new("RGB", (SIDE, SIDE), _tint(rng, base))
  if chance(rng, 0.25):
    picture = _draw_text(rng, image, colors)
  else:
    picture = _draw_shapes(rng, image, colors)
  if chance(rng, 0.3):
    pixels = np.asarray(picture.image, np.int16)
    pixels = pixels + rng.normal(0, 8, pixels.shape).astype(np.int16)
    noisy = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    picture = dataclasses.replace(picture, image=noisy)
  return picture


def _tint(rng: np.random.Generator, rgb, spread: int = 14) -> tuple[int, ...]:
  changed = np.asarray(rgb) + rng.integers(-spread, spread + 1, 3)
  return tuple(int(value) for value in changed.clip(0, 255))


def _draw_shapes(rng, image: Image.Image, colors: list[str]) -> LabelledPicture:
  canvas = ImageDraw.Draw(image)
  labels, places, told, names, taken = [], [], [], [], []
  for _ in range(int(rng.integers(1, 5))):
    size = int(rng.integers(10, 44 if not taken else 26))
    left, top = (int(n) for n in rng.integers(0, SIDE - size + 1, 2))
    box = (left, top, left + size, top + size)
    if any(_overlap(box, other) for other in taken):
      continue
    taken.append(box)
    shape, color = pick(rng, SHAPES), pick(rng, colors)
    box = _draw_shape(rng, canvas, shape, box, _tint(rng, INKS[color]))
    name, where = f"{color} {shape}", _region(box)
    labels += [shape, color, name, f"{where} {name}"]
    place = tuple(edge / SIDE for edge in box)
    places.append((place, (color, shape, name)))
    names.append(name)
    told.append(f"{a(name)} at the {where}")
  labels.append(f"{NUMBERS[len(names)]} things")
  if chance(rng, 0.5):
    caption = f"{listing(told)}."
  else:
    caption = f"the picture shows {listing([a(name) for name in names])}."
  return LabelledPicture(image, caption, tuple(labels), tuple(places), ())


def _draw_text(rng, image: Image.Image, colors: list[str]) -> LabelledPicture:
  text = "".join(pick(rng, LETTERS) for _ in range(int(rng.integers(1, 4))))
  size = int(rng.integers(16, 44 // max(1, len(text) - 1)))
  font = ImageFont.load_default(size)
  canvas = ImageDraw.Draw(image)
  color = pick(rng, colors)
  left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
  x = int(rng.integers(0, max(1, SIDE - int(right)))) - left
  y = int(rng.integers(0, max(1, SIDE - int(bottom)))) - top
  canvas.text((x, y), text, font=font, fill=_tint(rng, INKS[color]))
  places = []
  for number, letter in enumerate(text):
    start = x + canvas.textlength(text[:number], font=font)
    end = x + canvas.textlength(text[: number + 1], font=font)
    place = (start / SIDE, (y + top) / SIDE, end / SIDE, (y + bottom) / SIDE)
    places.append((place, (f"letter {letter}", f"{color} text")))
  labels = [f"letter {letter}" for letter in text]
  labels += [f"{color} text", f"{NUMBERS[len(text)]} letters"]
  caption = f'the text "{text}" in {color}.'
  return LabelledPicture(image, caption, tuple(labels), tuple(places), ())


def _overlap(box, other) -> bool:
  return not (
    box[2] <= other[0] or other[2] <= box[0] or box[3] <= other[1] or other[3] <= box[1]
  )


def _region(box) -> str:
  names = []
  for low, high, words in (
    (box[1], box[3], ("top", "bottom")),
    (box[0], box[2], ("left", "right")),
  ):
    middle = (low + high) / 2 / SIDE
    names.append(words[0] if middle < 0.4 else words[1] if middle > 0.6 else "")
  return " ".join(filter(None, names)) or "center"


def _draw_shape(rng, canvas: ImageDraw.ImageDraw, shape: str, box, rgb):
  """Draws a shape and returns the box that it fills."""
  left, top, right, bottom = box
  size = right - left
  if shape in ("rectangle", "ellipse"):
    cut = round(size * (0.35 + 0.25 * float(rng.random())))
    right, bottom = (right - cut, bottom) if chance(rng, 0.5) else (right, bottom - cut)
    box = (left, top, right, bottom)
  edge = (left, top, right - 1, bottom - 1)
  x, y, half = left + size / 2, top + size / 2, size / 2
  if shape in ("square", "rectangle"):
    canvas.rectangle(edge, fill=rgb)
  elif shape in ("circle", "ellipse"):
    canvas.ellipse(edge, fill=rgb)
  elif shape == "ring":
    canvas.ellipse(edge, outline=rgb, width=max(3, size // 4))
  elif shape == "cross":
    arm = max(1, size // 3)
    canvas.rectangle((left + arm, top, right - 1 - arm, bottom - 1), fill=rgb)
    canvas.rectangle((left, top + arm, right - 1, bottom - 1 - arm), fill=rgb)
  else:
    corners = {"triangle": 3, "diamond": 4, "pentagon": 5, "star": 10}[shape]
    turn = 0.0 if shape == "diamond" else float(rng.uniform(-0.5, 0.5))
    points = []
    for corner in range(corners):
      angle = 2 * math.pi * corner / corners - math.pi / 2 + turn
      reach = half * (0.45 if shape == "star" and corner % 2 else 1)
      points.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
    canvas.polygon(points, fill=rgb)
  return box
