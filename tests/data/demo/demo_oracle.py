"""Answers the demo's questions anew, from a scene's numbers and a question's text.

Shares no code with the package: positions come from coordinates, never from the
region that a scene names.
"""

import re

NUMBERS = "zero one two three four five six seven eight nine".split()
SHAPES = "circle square triangle diamond cross ring".split()
COLORS = "red green blue yellow orange purple black white".split()
OPPOSITES = dict(
  pair.split()
  for pair in (
    "hot cold,cold hot,day night,night day,wet dry,dry wet,old new,new old,"
    "fast slow,slow fast,open shut,shut open,soft hard,hard soft,happy sad,sad happy"
  ).split(",")
)
COLORED = {
  "grass": "green",
  "snow": "white",
  "coal": "black",
  "blood": "red",
  "water": "blue",
  "lemon": "yellow",
  "carrot": "orange",
  "plum": "purple",
}


def answer(scene, question):
  """The answer to a question (without its prompt) about a scene's JSON."""
  words = re.findall(r"[a-z]+", question)
  fact = _answer_fact(words)
  if fact is not None:
    return fact
  if "is shown. is there" in question:
    return "no" if question.startswith("no ") else "yes"
  if scene["source"] == "signs":
    return scene["color"] if "color" in words else scene["word"]
  if scene["source"] == "charts":
    return _answer_chart(scene, words)
  return _answer_layout(scene, words)


def region_of(thing, scene):
  """The quadrant of a thing's centre, or the centre itself."""
  x = (thing["left"] + thing["size"] / 2) / scene["width"]
  y = (thing["top"] + thing["size"] / 2) / scene["height"]
  if abs(x - 0.5) < 0.13 and abs(y - 0.5) < 0.13:
    return "center"
  return f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"


def _answer_fact(words):
  if "plus" in words or words[-4:-3] == ["add"]:
    terms = [NUMBERS.index(word) for word in words if word in NUMBERS]
    return NUMBERS[sum(terms)]
  for word in words:
    if word in OPPOSITES:
      return OPPOSITES[word]
    if word in COLORED:
      return COLORED[word]
  # "count on from five", "what comes before five"
  numbers = [NUMBERS.index(word) for word in words if word in NUMBERS]
  if numbers:
    back = "before" in words or "back" in words
    return NUMBERS[numbers[0] + (-1 if back else 1)]
  return None


def _answer_chart(scene, words):
  bars = scene["bars"]
  if ("how" in words and "many" in words) or words[0] == "count":
    return NUMBERS[len(bars)]
  if "tallest" in words or "shortest" in words:
    ordered = sorted(bars, key=lambda bar: bar["value"])
    return ordered[-1 if "tallest" in words else 0]["color"]
  (color,) = [word for word in words if word in COLORS]
  found = [bar for bar in bars if bar["color"] == color]
  if "high" in words or "value" in words:
    return NUMBERS[found[0]["value"]]
  return "yes" if found else "no"


def _answer_layout(scene, words):
  things = scene["things"]
  text = " ".join(words)
  colors = [word for word in words if word in COLORS]
  shapes = [word for word in words if word in SHAPES]

  def found():
    return [
      thing
      for thing in things
      if thing["color"] in (colors or COLORS) and thing["shape"] in (shapes or SHAPES)
    ]

  if text.startswith(("is ", "can you see")):
    return "yes" if found() else "no"
  if "many" in words or words[0] == "count":
    things_named = text.replace("crosses", "cross").replace("count the", "").split()
    kinds = [w.rstrip("s") if w != "cross" else w for w in things_named]
    kinds = [kind for kind in kinds if kind in SHAPES]
    return NUMBERS[sum(thing["shape"] in (kinds or SHAPES) for thing in things)]
  if "side" in words or "seen" in words:
    one, two = shapes if "seen" in words else reversed(shapes)
    return _side(
      next(t for t in things if t["shape"] == one),
      next(t for t in things if t["shape"] == two),
    )
  if "largest" in words or "smallest" in words:
    ordered = sorted(things, key=lambda thing: thing["size"])
    thing = ordered[-1 if "largest" in words else 0]
    return thing["color"] if "color" in words else thing["shape"]
  place = re.search(
    r"in the (top left|top right|bottom left|bottom right|center)", text
  )
  if place:
    chosen = [thing for thing in things if region_of(thing, scene) == place[1]]
  else:
    chosen = found()
  (thing,) = chosen[:1] if len({(t["shape"], t["color"]) for t in chosen}) == 1 else []
  if "where" in words or "place" in words:
    assert len(chosen) == 1, "an ambiguous place"
    return region_of(thing, scene)
  return thing["color"] if "color" in words else thing["shape"]


def _side(one, two):
  across = one["left"] + one["size"] / 2 - two["left"] - two["size"] / 2
  down = one["top"] + one["size"] / 2 - two["top"] - two["size"] / 2
  if abs(across) > abs(down):
    return "left" if across < 0 else "right"
  return "above" if down < 0 else "below"
