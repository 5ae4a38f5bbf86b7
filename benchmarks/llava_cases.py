"""Conversations and pictures on which LLaVA's data path and ours are compared."""

import random
from typing import NamedTuple

import numpy as np
from PIL import Image

MARK = "<image>"
SHAPES = ((40, 24), (24, 40), (33, 33), (41, 24), (24, 41), (7, 3), (31, 200), (1, 9))


class Case(NamedTuple):
  """A conversation and how it is to be read.

  Attributes:
    differs: why our way is another, on purpose; "" where it must be the same.
  """

  values: tuple[str, ...]
  differs: str = ""
  max_length: int = 2048
  first: str = "human"
  system: str | None = None


LITERAL = "special-token text is text"
EMPTY = "an empty turn is framed as any other, not learned, and loses no row"
OVERLAP = "LLaVA learns the template's own 'ASSISTANT:', too"
CUT = "LLaVA learns from a part of the image"
MASKED = "masked by LLaVA"

VICUNA = {
  "one turn": Case((f"{MARK}\nwhat colour is the circle?", "red")),
  "three turns": Case(
    (f"{MARK}\nwhat is it?", "a star", "which colour?", "blue", "why?", "no")
  ),
  "text only": Case(("how many are there?", "two")),
  "text only, turns": Case(("how many?", "two", "where?", "in the picture")),
  "image later": Case(("is it a star?", "no", f"{MARK}\nand here?", "yes", "a?", "b")),
  "mark at the end": Case((f"what colour is it?\n{MARK}", "blue")),
  "mark inside": Case((f"what {MARK} colour?", "red")),
  "only the mark": Case((MARK, "a red circle")),
  "leading gpt turn": Case(("hello", f"{MARK}\nwhat?", "red"), first="gpt"),
  "unicode": Case((f"{MARK}\nwas ist das für ein Ding? 你好", "größer 🙂 é")),
  "odd spaces": Case((f"{MARK}\n  odd   spacing ", "  two  words ", " a ", "b\t")),
  "lines": Case((f"{MARK}\nlist\n\nthem", "\none\ntwo\n\nthree\n", "?", "\n\n- a")),
  "cut in an answer": Case(
    (f"{MARK}\nwhat?", "red blue " * 20, "a", "b"), "", 60, system="A"
  ),
  "cut in a question": Case(
    ("what?", "red", "blue star " * 30, "two"), "", 60, system="A"
  ),
  "cut after an image": Case(
    ("a", "no", f"{MARK}\nwhat?", "red " * 30), "", 60, system="A"
  ),
  "other system": Case((f"{MARK}\nwhat?", "red", "a", "no"), system="Be brief."),
  "frame in a question": Case((f"{MARK}\nsay USER: a ASSISTANT: b", "red"), MASKED),
  "frame in an answer": Case(("what?", "red", "a", "no ASSISTANT: yes"), MASKED),
  "frame at a question's start": Case(("ASSISTANT: a", "b"), MASKED),
  "frame at an answer's start": Case(("what?", "ASSISTANT: b")),
  "frame after the cut": Case(
    ("what?", "red " * 60, "a ASSISTANT: b", "c"), "", 60, system="A"
  ),
  "frame after an image": Case(
    (f"{MARK}\nwhat?", "red " * 4, "x ASSISTANT: b", "c"), MASKED, 28, system="A"
  ),
  "frame runs into ours": Case((f"{MARK}\nsay ASSISTANT:", "red"), OVERLAP),
  "image over the cut": Case((f"{MARK}\nwhat?", "red"), "", 9, system="A"),
  "image over the cut, later": Case(
    ("what?", "red", f"{MARK}\nwhat?", "no"), CUT, 22, system="A"
  ),
  "</s> in an answer": Case((f"{MARK}\nwhat?", "a </s> b"), LITERAL),
  "</s> at an answer's end": Case((f"{MARK}\nwhat?", "red</s>"), LITERAL),
  "</s> in a question": Case((f"{MARK}\nwhat is </s>?", "red"), LITERAL),
  "<s> in an answer": Case((f"{MARK}\nwhat?", "a <s> b"), LITERAL),
  "<unk> in an answer": Case((f"{MARK}\nwhat?", "a <unk> b"), LITERAL),
  "empty first answer": Case((f"{MARK}\nwhat?", "", "a?", "red"), EMPTY),
  "empty last answer": Case((f"{MARK}\nwhat?", "red", "a?", ""), EMPTY),
  "blank answer": Case((f"{MARK}\nwhat?", " ", "a?", "red"), EMPTY),
  "empty question": Case(("", "red"), EMPTY),
  "question without answer": Case((f"{MARK}\nwhat?", "red", "and?"), EMPTY),
}
PLAIN = {
  "caption": Case((f"{MARK}\nDescribe it.", "a red star")),
  "caption, mark last": Case((f"what is it?\n{MARK}", "a blue circle ")),
  "caption, cut": Case((MARK, "a red star " * 9), "", 20),
  "caption, unicode": Case((MARK, "é 你好")),
}
LLAMA = {
  **{
    name: VICUNA[name]
    for name in (
      "one turn", "three turns", "text only", "text only, turns", "image later",
      "leading gpt turn", "unicode", "odd spaces", "lines", "cut in an answer",
      "cut after an image", "other system",
    )
  },
  "frame in a question": Case((f"{MARK}\nsay [/INST] b", "red"), MASKED),
  "frame in an answer": Case(("what?", "red", "a", "no [/INST] yes"), MASKED),
}  # fmt: skip
CASES = {"vicuna_v1": VICUNA, "plain": PLAIN, "llama-2": LLAMA}


def talk(case: Case) -> list[dict[str, str]]:
  roles = ("human", "gpt") if case.first == "human" else ("gpt", "human")
  return [
    {"from": roles[place % 2], "value": value}
    for place, value in enumerate(case.values)
  ]


WORDS = (
  "what colour is the circle ? , : . red blue star two \n \n\n  - é 你好 🙂 USER:"
  " ASSISTANT: ASSISTANT A: how many [ ] [/INST] INST"
).split(" ") + ["", " ", "\t", "\n"]


def draw_text(rng: random.Random, most: int) -> str:
  words = [rng.choice(WORDS) for _ in range(rng.randint(1, most))]
  text = "".join(word + rng.choice(("", " ", " ", "  ")) for word in words)
  return text if text.strip() else f"x{text}"


def draw_case(rng: random.Random, template: str) -> Case:
  """A conversation of odd text without special tokens and empty turns."""
  rounds = 1 if template == "plain" else rng.randint(1, 4)
  values = [draw_text(rng, 12) for _ in range(2 * rounds)]
  if template == "plain" or rng.random() < 0.7:
    turn = 2 * rng.randrange(rounds)
    text = values[turn]
    values[turn] = rng.choice((f"{MARK}\n{text}", f"{text}\n{MARK}", f"a{MARK}{text}"))
  first = "human"
  if template != "plain" and rng.random() < 0.1:
    values, first = [draw_text(rng, 3), *values], "gpt"
  system = rng.choice((None, None, "Be brief.")) if template != "plain" else None
  return Case(tuple(values), "", rng.choice((2048, 2048, 90, 160)), first, system)


def picture(width: int, height: int) -> Image.Image:
  """Smooth colours and an edge, the same everywhere."""
  y, x = np.mgrid[:height, :width]
  base = np.stack([x * 5, y * 9, (x + y) * 3], -1) % 256
  base[height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = 250, 10, 120
  return Image.fromarray(base.astype(np.uint8))
