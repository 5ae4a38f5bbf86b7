"""Draws scenes with Pillow, without system fonts, so that pixels are reproducible."""

from PIL import Image, ImageDraw

from mllm_selector_jax.demo.language import LEVELS
from mllm_selector_jax.demo.scenes import Chart, Scene, SceneLayout, Sign, Thing

# A font of 5 x 7 pixels: seven bytes for each letter, the top row first, of five bits.
_GLYPHS = {
  letter: bytes.fromhex(rows)
  for letter, rows in {
    "a": "0e11111f111111", "b": "1e11111e11111e", "c": "0e11101010110e",
    "d": "1e11111111111e", "e": "1f10101e10101f", "f": "1f10101e101010",
    "g": "0e11101711110f", "h": "1111111f111111", "i": "0e04040404040e",
    "j": "0702020202120c", "k": "11121418141211", "l": "1010101010101f",
    "m": "111b1515111111", "n": "11111915131111", "o": "0e11111111110e",
    "p": "1e11111e101010", "q": "0e11111115120d", "r": "1e11111e141211",
    "s": "0f10100e01011e", "t": "1f040404040404", "u": "1111111111110e",
    "v": "11111111110a04", "w": "1111111515150a", "x": "11110a040a1111",
    "y": "1111110a040404", "z": "1f01020408101f",
  }.items()
}  # fmt: skip


def draw(scene: Scene) -> Image.Image:
  """Draws a scene as an RGB image of its width and height."""
  image = Image.new("RGB", (scene.width, scene.height), scene.background)
  canvas = ImageDraw.Draw(image)
  if isinstance(scene, SceneLayout):
    for thing in scene.things:
      _draw_thing(canvas, thing, scene.background)
  elif isinstance(scene, Sign):
    _draw_sign(canvas, scene)
  else:
    _draw_chart(canvas, scene)
  return image


def _draw_thing(canvas: ImageDraw.ImageDraw, thing: Thing, background) -> None:
  left, top = thing.left, thing.top
  right, bottom = left + thing.size - 1, top + thing.size - 1
  middle, half = left + (thing.size - 1) / 2, top + (thing.size - 1) / 2
  rgb = thing.rgb
  if thing.shape == "square":
    canvas.rectangle((left, top, right, bottom), fill=rgb)
  elif thing.shape == "triangle":
    canvas.polygon([(middle, top), (right, bottom), (left, bottom)], fill=rgb)
  elif thing.shape == "diamond":
    corners = [(middle, top), (right, half), (middle, bottom), (left, half)]
    canvas.polygon(corners, fill=rgb)
  elif thing.shape == "cross":
    arm = round(thing.size * 0.36)
    canvas.rectangle((left + arm, top, right - arm, bottom), fill=rgb)
    canvas.rectangle((left, top + arm, right, bottom - arm), fill=rgb)
  else:
    canvas.ellipse((left, top, right, bottom), fill=rgb)
    if thing.shape == "ring":
      rim = round(thing.size * 0.27)
      hole = (left + rim, top + rim, right - rim, bottom - rim)
      canvas.ellipse(hole, fill=background)


def _draw_sign(canvas: ImageDraw.ImageDraw, sign: Sign) -> None:
  canvas.rectangle(sign.panel, fill=sign.rgb)
  dot_width, dot_height = sign.dot
  for place, letter in enumerate(sign.word):
    start = sign.left + place * 6 * dot_width
    for row, bits in enumerate(_GLYPHS[letter]):
      for column in range(5):
        if bits >> (4 - column) & 1:
          x, y = start + column * dot_width, sign.top + row * dot_height
          dot = (x, y, x + dot_width - 1, y + dot_height - 1)
          canvas.rectangle(dot, fill=sign.ink)


def _draw_chart(canvas: ImageDraw.ImageDraw, chart: Chart) -> None:
  for level in range(1, 1 + len(LEVELS)):
    y = chart.base - level * chart.unit
    canvas.line((0, y, chart.width, y), fill=chart.grid)
  for bar in chart.bars:
    top = chart.base - bar.value * chart.unit
    canvas.rectangle((bar.left, top, bar.right, chart.base), fill=bar.rgb)
  canvas.line((0, chart.base, chart.width, chart.base), fill=chart.grid)
