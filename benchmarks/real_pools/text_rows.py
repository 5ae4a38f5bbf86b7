"""Rows without an image: instructions of Alpaca's form, and trivia questions."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.real_pools.sources import Repository

ALPACA = Repository(
  "hiyouga/LLaMA-Factory",
  "ff6d4d12eeb035d6ce06805a5733dd7b29f2ac30",
  "Apache 2.0 of the repository, whose alpaca_en_demo.json has 999 instructions",
)
TRIVIA = Repository(
  "uberspot/OpenTriviaQA",
  "dd31530bfbb19f9505b160b89c9df4b1127e3c70",
  "CC BY-SA 4.0",
)
CATEGORIES = ("animals", "for-kids", "general", "geography", "science-technology")
LONGEST = 200  # characters of an instruction's question, and of its answer
LONGEST_TRIVIA = 150  # characters of a question and its options
QUESTION = re.compile(r"#Q (.+)\n\^ (.+)\n((?:[A-D] .+\n?)+)")


def read_alpaca(folder: Path) -> Iterator[tuple[str, str]]:
  """Yields short-answered instructions, with their input below, and answers."""
  for record in json.loads(ALPACA.read_one(folder, "data/alpaca_en_demo.json")):
    texts = (record["instruction"], record["input"])
    question = "\n".join(text for text in texts if text)
    if max(len(question), len(record["output"])) <= LONGEST:
      yield question, record["output"]


def read_trivia(folder: Path) -> Iterator[tuple[str, str]]:
  """Yields questions with their options, and answers."""
  for category in CATEGORIES:
    text = TRIVIA.read_one(folder, f"categories/{category}").decode(errors="replace")
    yield from parse_trivia(text)


def parse_trivia(text: str) -> Iterator[tuple[str, str]]:
  """Reads a file of OpenTriviaQA without long, broken and many-lined questions."""
  for question, answer, options in QUESTION.findall(text.replace("\r\n", "\n")):
    listed = ", ".join(line[2:].strip() for line in options.splitlines() if line)
    asked = f"{question.strip()}\n{listed}"
    if len(asked) <= LONGEST_TRIVIA and "\ufffd" not in asked + answer:
      yield asked, answer.strip()
