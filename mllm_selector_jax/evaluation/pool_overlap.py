"""Finds evaluation questions that the pool also contains, by their content."""

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator
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
# The kinds for which a run is refused. Similar questions without an image are not among
# them: questions of that sort often ask for the same facts in other words.
REFUSED = ("same", "near")
# Words that do not change what a question asks.
EMPTY = frozenset(
  "a an the is are was were be do does did can could please you tell me us this that"
  " these those there here in of at to image picture photo figure shown".split()
)
_WORD = re.compile(r"[^\W_]+")


def normalise_question(text: str) -> str:
  """Returns a question's lower-case words, without image marks and LLaVA's prompts."""
  for part in (MARK, SHORT_PROMPT, LETTER_PROMPT):
    text = text.replace(part, " ")
  return " ".join(_WORD.findall(text.casefold()))


def bare_question(text: str) -> str:
  """Returns the words of a question that carry its meaning, without a plural s."""
  words = [word for word in normalise_question(text).split() if word not in EMPTY]
  return " ".join(
    word[:-1] if len(word) > 3 and word.endswith("s") else word for word in words
  )


@dataclasses.dataclass(frozen=True)
class Leak:
  """A question of the evaluation that a row of the pool also asks.

  Attributes:
    kind: a key of `KINDS`.
    task, id: the task and the id of the question.
    where: the file and the place of the question in it.
    question: the text of the question.
    row: the number of the row in the pool.
    asked: the text of the question in that row.
  """

  kind: str
  task: str
  id: str | int
  where: str
  question: str
  row: int
  asked: str


class Index:
  """An index of the evaluation's questions by image and words.

  Args:
    questions: the questions, each with the hash of the prepared pixels of its image;
      None for a question without an image.
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
    """Finds the questions that equal a question of the pool.

    Args:
      pixels: the hash of the prepared pixels of the row's image, or None.
      asked: the question in the pool.

    Yields:
      The kind of the match, a key of `KINDS`, and the question of the evaluation.
    """
    same = self._same.get((pixels, normalise_question(asked)), [])
    yield from (("same", question) for question in same)
    if bare := bare_question(asked):
      for question in self._near.get((pixels, bare), []):
        if question not in same:
          yield ("text" if pixels is None else "near"), question


def find_leaks(
  index: Index,
  pool: Iterable[tuple[int, str | None, list[str]]],
) -> list[Leak]:
  """Finds the questions of the evaluation that the pool contains.

  Args:
    index: the questions of the evaluation.
    pool: for each image of each row the row's number, the hash of the image's prepared
      pixels (None for a row without an image), and the questions that the row asks.

  Returns:
    One leak for each question that the pool contains: its first row of the kind
    "same", or if there is none, its first row of another kind.
  """
  leaks: dict[tuple[str, str], Leak] = {}
  for row, pixels, turns in pool:
    for asked in turns:
      for kind, question in index.find(pixels, asked):
        key = question.task, repr(question.id)
        if key in leaks and not (kind == "same" != leaks[key].kind):
          continue
        leaks[key] = Leak(
          kind,
          question.task,
          question.id,
          question.where,
          question.question,
          row,
          asked,
        )
  return list(leaks.values())
