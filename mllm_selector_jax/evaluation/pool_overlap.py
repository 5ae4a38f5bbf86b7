"""Finds evaluation questions that the pool also contains, by their content."""

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
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
Hashes = Sequence[str | None]  # of one image, by each way to prepare it
_Entry = tuple[Question, Sequence[Hashes]]  # a question and its images after the first


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
    images: the names of its images.
    question: the text of the question.
    row: the number of the row in the pool.
    asked: the text of the question in that row.
  """

  kind: str
  task: str
  id: str | int
  where: str
  images: tuple[str, ...]
  question: str
  row: int
  asked: str


class Index:
  """An index of the evaluation's questions by their first image and their words.

  Args:
    questions: the questions, each with the hashes of the prepared pixels of each of its
      images: several, if the base prepares an image in several ways.

  Attributes:
    pixels: the hashes of the first images; None if a question has no image.
  """

  def __init__(self, questions: Iterable[tuple[Question, Sequence[Hashes]]]):
    self._same: dict[Any, list[_Entry]] = collections.defaultdict(list)
    self._near: dict[Any, list[_Entry]] = collections.defaultdict(list)
    self.pixels: set[str | None] = set()
    for question, (first, *others) in ((q, h or [(None,)]) for q, h in questions):
      entry = question, others
      for pixels in dict.fromkeys(first):
        self.pixels.add(pixels)
        self._same[pixels, normalise_question(question.question)].append(entry)
        if bare := bare_question(question.question):
          self._near[pixels, bare].append(entry)

  def find(self, pixels: Sequence[str], asked: str) -> Iterator[tuple[str, Question]]:
    """Finds the questions that equal a question of the pool.

    A row has the images of a question if each of these is among its own.

    Args:
      pixels: the hashes of the prepared pixels of the row's images.
      asked: the question in the pool.

    Yields:
      The kind of the match, a key of `KINDS`, and the question of the evaluation.
    """
    normal, bare = normalise_question(asked), bare_question(asked)
    shown = frozenset(pixels)
    for first in dict.fromkeys(pixels or (None,)):
      same = [
        question
        for question, others in self._same.get((first, normal), [])
        if all(not shown.isdisjoint(hashes) for hashes in others)
      ]
      yield from (("same", question) for question in same)
      for question, others in self._near.get((first, bare), []) if bare else ():
        if question not in same:
          if all(not shown.isdisjoint(hashes) for hashes in others):
            yield ("near" if pixels else "text"), question


def find_leaks(
  index: Index,
  pool: Iterable[tuple[int, Sequence[str], list[str]]],
) -> list[Leak]:
  """Finds the questions of the evaluation that the pool contains.

  Args:
    index: the questions of the evaluation.
    pool: for each row its number, the hashes of the prepared pixels of its images, and
      the questions that it asks.

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
          tuple(image.name for image in question.images),
          question.question,
          row,
          asked,
        )
  return list(leaks.values())
