"""All words of the demo: names, facts, and the wordings of questions and captions.

Captions, pool and evaluation use one small vocabulary of lower-case words, so that a
tokenizer with one token for each word covers all of them.
"""

import itertools
import re

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
PLURALS = {shape: f"{shape}s" for shape in SHAPES} | {"cross": "crosses"}
COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
CORNERS = ("top left", "top right", "bottom left", "bottom right")
REGIONS = (*CORNERS, "center")
SIDES = ("left", "right", "above", "below")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COUNTS = NUMBERS[:4]
LEVELS = NUMBERS[:4]
WORDS = tuple("bus cat dog sun tea ice map fox key zoo go up".split())

# The end of the first human turn, which corresponds to LLaVA's short-answer prompt.
SHORT_ANSWER = "\nanswer briefly."

# The wordings of each kind of question, one of which is drawn.
QUESTIONS = {
  "shape of color": (
    "what shape is the {color} object?",
    "which shape is {color}?",
  ),
  "shape alone": ("what shape is this?", "which shape is shown?"),
  "shape in region": (
    "what shape is in the {region}?",
    "which shape is in the {region}?",
  ),
  "color of shape": (
    "what color is the {shape}?",
    "which color is the {shape}?",
  ),
  "color alone": ("what color is this object?", "which color is shown?"),
  "color in region": ("what color is the object in the {region}?",),
  "color of sign": ("what color is the sign?", "which color is the sign?"),
  "existence": ("is there {thing}?", "can you see {thing}?"),
  "count": ("how many {things} are there?", "count the {things}."),
  "position": ("where is the {thing}?", "in which place is the {thing}?"),
  "relation": (
    "on which side of the {other} is the {shape}?",
    "where is the {shape} seen from the {other}?",
  ),
  "shape of largest": (
    "what shape is the largest object?",
    "which shape is the largest?",
  ),
  "color of size": (
    "what color is the {size} object?",
    "which color is the {size} object?",
  ),
  "text": (
    "what does the sign say?",
    "read the sign.",
  ),
  "extreme bar": (
    "which bar is the {extreme}?",
    "what color is the {extreme} bar?",
  ),
  "value": ("how high is the {color} bar?", "what is the value of the {color} bar?"),
  "shape hint": ("what shape is the {color} {shape}?",),
  "color hint": ("what color is the {color} {shape}?",),
  "existence hint yes": ("{thing} is shown. is there {thing}?",),
  "existence hint no": ("no {bare} is shown. is there {thing}?",),
}

_OPPOSITES = "hot cold, day night, wet dry, old new, fast slow, soft hard"
_COLORED = (
  "grass green, snow white, coal black, blood red, water blue, lemon yellow,"
  " carrot orange, plum purple"
)
LEAD_INS = (
  "",
  "say, ",
  "tell me, ",
  "please answer: ",
  "question: ",
  "do you know, ",
  "next: ",
  "now, ",
)
FACT_WORDINGS = {
  "opposite": (
    "what is the opposite of {0}?",
    "the opposite of {0} is what?",
    "what is not {0}?",
  ),
  "colored": (
    "what color is {0}?",
    "which color is {0}?",
    "what is the color of {0}?",
  ),
  "after": (
    "what comes after {0}?",
    "which number is after {0}?",
    "what is the number after {0}?",
  ),
  "before": (
    "what comes before {0}?",
    "which number is before {0}?",
    "what is the number before {0}?",
  ),
}


def _facts() -> dict[str, tuple[tuple[tuple[str, ...], str], ...]]:
  opposites = [tuple(pair.split()) for pair in _OPPOSITES.split(", ")]
  colored = [tuple(pair.split()) for pair in _COLORED.split(", ")]
  steps = list(itertools.pairwise(NUMBERS))
  return {
    "opposite": tuple(((a,), b) for x, y in opposites for a, b in ((x, y), (y, x))),
    "colored": tuple(((thing,), color) for thing, color in colored),
    "after": tuple(((a,), b) for a, b in steps),
    "before": tuple(((b,), a) for a, b in steps),
  }


# The facts of each kind: the words for the question, and the answer.
FACTS = _facts()

CAPTION_PROMPTS = (
  "describe the image.",
  "describe the picture briefly.",
  "write a caption.",
)

# The wordings of each kind of sentence in a caption, one of which is drawn.
CAPTIONS = {
  "things": ("{things}.", "{things} are shown.", "a picture with {things}."),
  "one thing": ("{things}.", "{things} is shown.", "a picture with {things}."),
  "region": (
    "{region}: {thing}.",
    "the object in the {region} is {thing}.",
    "in the {region} is {thing}.",
  ),
  "color": ("the {shape} is {color}.", "the color of the {shape} is {color}."),
  "shape": ("the {color} object is {shape}.", "the {color} shape is {shape}."),
  "where": ("the {shape} is in the {region}.", "{thing} in the {region}."),
  "none": ("there is no {bare}.", "no {bare} is there."),
  "some": ("there is {thing}.", "{thing} is there."),
  "count": ("there are {count} {things}.", "{count} {things}."),
  "count one": ("there is one {things}.", "one {things}."),
  "relation": ("{thing} {side} {other}.",),
  "size": ("the {size} object is {thing}.", "a {size} {bare}."),
  "word": ("the sign says {word}.", "a {color} sign: {word}."),
  "sign": ("a {color} sign.", "the sign is {color}."),
  "bars": ("a chart with {count} bars.", "{count} bars: {colors}.", "bars: {colors}."),
  "levels": ("{levels}.",),
}
SIDE_WORDS = {
  "left": "left of",
  "right": "right of",
  "above": "above",
  "below": "below",
}
_REST = (
  "object objects bar bars large small largest smallest tallest"
  " shortest high low an a and yes no"
)


def a(words: str) -> str:
  """Puts the indefinite article before words."""
  return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def listing(items: list[str]) -> str:
  """Joins items as in `x`, `x and y`, `x, y and z`."""
  if len(items) == 1:
    return items[0]
  return f"{', '.join(items[:-1])} and {items[-1]}"


def vocabulary() -> tuple[str, ...]:
  """Returns all words and punctuation marks that the demo can write, sorted."""
  texts = [SHORT_ANSWER, _REST, *LEAD_INS, *CAPTION_PROMPTS, *SIDE_WORDS.values()]
  texts += [*SHAPES, *PLURALS.values(), *COLORS, *REGIONS, *SIDES, *NUMBERS, *WORDS]
  for wordings in (QUESTIONS, FACT_WORDINGS, CAPTIONS):
    texts += [
      re.sub(r"\{\w+\}", " ", text) for group in wordings.values() for text in group
    ]
  for facts in FACTS.values():
    texts += [word for asked, answer in facts for word in (*asked, answer)]
  return tuple(sorted(set(tokens(" ".join(texts)))))


def tokens(text: str) -> list[str]:
  """Splits a text into words and punctuation marks."""
  return re.findall(r"[a-z]+|[^\sa-z]", text)
