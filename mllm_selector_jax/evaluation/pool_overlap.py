"""Evaluation questions that also stand in the pool, found by content."""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mllm_selector_jax.evaluation.question import (
  LETTER_PROMPT,
  SHORT_PROMPT,
  Question,
)
from mllm_selector_jax.types import MARK

KINDS = {
  "same": "the same question about the same image, or both without one",
  "near": "the same image and nearly the same question",
  "text": "nearly the same question, without an image",
}
# Facts asked in other words are what questions of text alone are made of.
REFUSED = ("same", "near")
# Words that a question may have or lack and still ask the same.
EMPTY = frozenset(
  "a an the is are was were be do does did can could please you tell me us this that"
  " these those there here in of at to image picture photo figure shown".split()
)
_WORD = re.compile(r"[^\W_]+")


def normalise_question(text: str) -> str:
  """The words of a question, in lower case, without marks and LLaVA's prompts."""
  for part in (MARK, SHORT_PROMPT, LETTER_PROMPT):
    text = text.replace(part, " ")
  return " ".join(_WORD.findall(text.casefold()))


def bare_question(text: str) -> str:
  """The words of a question that carry its meaning, a plural's s dropped."""
  words = [word for word in normalise_question(text).split() if word not in EMPTY]
  return " ".join(
    word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words
  )


@dataclasses.dataclass(frozen=True)
class Leak:
  """A question of the evaluation that a row of the pool holds.

  Attributes:
    kind: a key of `KINDS`.
    task, id: of the question.
    where: the question stands.
    question: its text.
    row: of the pool.
    asked: the pool's text.
  """

  kind: str
  task: str
  id: str | int
  where: str
  question: str
  row: int
  asked: str


class Index:
  """The questions by image and words.

  Args:
    questions: with the hash of the prepared pixels of their image; None for text
      alone.
  """

  def __init__(self, questions: Iterable[tuple[Question, str | None]]):
    self._same: dict[Any, list[Question]] = collections.defaultdict(list)
    self._near: dict[Any, list[Question]] = collections.defaultdict(list)
    self.pixels: set[str | None] = set()
    for question, pixels in questions:
      self.pixels.add(pixels)
      self._same[pixels, normalise_question(question.question)].append(question)
      if bare := bare_question(question.question):
        self._near[pixels, bare].append(question)

  def find(self, pixels: str | None, asked: str) -> Iterator[tuple[str, Question]]:
    """The questions that a question of the pool about these pixels is, by kind."""
    same = self._same.get((pixels, normalise_question(asked)), [])
    yield from (("same", question) for question in same)
    if bare := bare_question(asked):
      for question in self._near.get((pixels, bare), []):
        if question not in same:
          yield ("text" if pixels is None else "near"), question


def find_leaks(
  index: Index,
  pool: Iterable[tuple[int, str | None, list[str]]],
  seen: Callable[[int], None] = lambda count: None,
) -> list[Leak]:
  """Each leaked question once, by its first row in the pool of the worse kind.

  Args:
    index: of the questions.
    pool: row, hash of its image's prepared pixels (None for text alone), and the
      questions that it asks.
    seen: called with the number of rows seen.
  """
  found: dict[tuple[str, str], Leak] = {}
  for count, (row, pixels, turns) in enumerate(pool, 1):
    for asked in turns:
      for kind, question in index.find(pixels, asked):
        key = question.task, repr(question.id)
        if key in found and not (kind == "same" != found[key].kind):
          continue
        found[key] = Leak(
          kind,
          question.task,
          question.id,
          question.where,
          question.question,
          row,
          asked,
        )
    seen(count)
  return list(found.values())
