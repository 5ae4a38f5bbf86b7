"""The record form of evaluation questions, and the checks of a record.

A record has the fields `id`, `question` and `answers`, and may have `image` (one image
or a list of them, also by the other names that a pool's records have for it), `metric`,
`task`, `choices`, `category` and `group`. A record in LLaVA's form, with
`conversations`, is read too. `published` converts the published files of benchmarks to
this form.
"""

import re
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.data.record_schemas.image_marks import place_marks
from mllm_selector_jax.data.record_schemas.image_values import read_fields
from mllm_selector_jax.data.record_schemas.turns import HUMAN, Turn
from mllm_selector_jax.evaluation.metrics import ANNOTATED, LETTERED, LOOKUP
from mllm_selector_jax.types import MARK, RowError

LETTERS = string.ascii_uppercase
SHORT_PROMPT = "Answer the question using a single word or phrase."
LETTER_PROMPT = "Answer with the option's letter from the given choices directly."


class Place(NamedTuple):
  """The place of an image that is stored inside a question file.

  Attributes:
    path: the path of the file.
    offset, length: the place of the row that holds the image.
    number: the number of the image in its row, from 0.
  """

  path: str
  offset: int
  length: int
  number: int = 0


class QuestionImage(NamedTuple):
  """An image of a question.

  Attributes:
    name: the path inside the image folder, or the name of an image that is stored
      inside a file.
    folder: the image folder of the task; None if it is that of the evaluation.
    place: the place of an image that is stored inside a file; None for any other.
  """

  name: str
  folder: str | None = None
  place: Place | None = None

  @property
  def key(self) -> tuple:
    """The same for all questions that show this image."""
    return self.place or (self.folder, self.name)


class Question(NamedTuple):
  """One question with its accepted answers.

  Attributes:
    id: the id in the file, verbatim; unique within its task.
    task: the task in whose mean its score is counted.
    images: the images, in order.
    question: the text that the model is asked, including options. An image stands at
      each `<image>`; in a text without this mark they stand first.
    answers: the accepted answers; letters, if the metric is in `metrics.LETTERED`.
    metric: a key of `metrics.METRICS`, or a plug-in's metric that evaluate.metrics
      names.
    choices: the options of a multiple-choice question; None for any other.
    category: the category in the totals of a benchmark; None for none.
    group: the same for all questions that a benchmark marks together; None for a
      question that is marked on its own.
    where: the file and the place of the question in it, for messages.
  """

  id: str | int
  task: str
  images: tuple[QuestionImage, ...]
  question: str
  answers: tuple[str, ...]
  metric: str = "exact_match"
  choices: tuple[str, ...] | None = None
  category: str | None = None
  group: str | None = None
  where: str = ""


class Aside(NamedTuple):
  """A question that cannot be asked, and the reason.

  Attributes:
    id, task: None if the row does not say.
    reason: a key of `types.REASONS`, under which the question is counted.
    detail: what is wrong, and where.
  """

  id: str | int | None
  task: str | None
  reason: str
  detail: str


def _malformed(detail: str) -> RowError:
  return RowError("malformed", detail)


def _strings(value: Any, field: str, some_empty: bool = False) -> tuple[str, ...]:
  """Converts a string, a number or a list of them to strings.

  No string may be empty; with `some_empty`, some may be, but not all.
  """
  values = value if isinstance(value, list) else [value]
  for item in values:
    if isinstance(item, bool) or not isinstance(item, str | int | float):
      raise _malformed(f'"{field}" holds {type(item).__name__}, not text')
  out = tuple(str(item).strip() for item in values)
  if not (any(out) if some_empty else out and all(out)):
    raise _malformed(f'"{field}" is empty')
  return out


def _read_images(
  record: dict, folder: str | None, places: Sequence[Place | None]
) -> tuple[tuple[QuestionImage, ...], int]:
  """Returns a record's images, and the number of its image fields that are empty."""
  found, _ = read_fields(record)
  images = []
  for number, picture in enumerate(found.pictures):
    if picture.name is None:
      raise _malformed("an image is written into the record; store it as a file")
    place = places[number] if number < len(places) else None
    images.append(QuestionImage(picture.name, folder, place))
  return tuple(images), found.blanks


def _check_marks(question: str, images: int, blanks: int) -> str:
  """Returns a question without the marks of images that stand first.

  Raises:
    RowError: the question has another number of marks than images.
  """
  place_marks([Turn(HUMAN, question)], images, blanks)
  return question.removeprefix(f"{MARK}\n" * images).lstrip()


def _read_turns(record: dict) -> tuple[str, str]:
  """Returns the first human turn and the first answer after it."""
  turns = record["conversations"]
  if not isinstance(turns, list):
    raise _malformed('"conversations" is not a list')
  question = None
  for turn in turns:
    if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
      raise _malformed('a turn has no "value" text')
    if turn.get("from") == "human" and question is None:
      question = turn["value"]
    elif turn.get("from") == "gpt" and question is not None:
      return question, turn["value"]
  raise _malformed("no human turn with an answer after it")


def _letter_answers(
  answers: tuple[str, ...], choices: tuple[str, ...] | None
) -> tuple[str, ...]:
  """Converts the answers of a multiple choice, letters or options, to letters."""
  options = LETTERS[: len(choices)] if choices else LETTERS
  letters = []
  for answer in answers:
    if len(answer) == 1 and answer.upper() in options:
      letters.append(answer.upper())
    elif choices and answer in choices:
      letters.append(LETTERS[choices.index(answer)])
    else:
      raise _malformed(f"answer {answer!r} is neither an option nor its letter")
  return tuple(letters)


def ask_choices(question: str, choices: Sequence[str]) -> str:
  """Returns a question with its lettered options, in the words of LLaVA."""
  lines = [
    f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)
  ]
  return "\n".join([question, *lines, LETTER_PROMPT])


def _read_label(record: dict, field: str) -> str | None:
  value = record.get(field)
  return None if value in (None, "") else str(value)


def make_question(
  record: dict,
  rules: Sequence[tuple[re.Pattern, str]],
  default: str,
  where: str,
  folder: str | None = None,
  places: Sequence[Place | None] = (),
) -> Question:
  """Converts a record to a question.

  Args:
    record: a record in the form of this module, or in LLaVA's.
    rules: patterns with task names; see `tasks.read_questions`.
    default: the task, if neither the record nor a rule names one.
    where: the file and the place of the record in it, for messages.
    folder: the image folder of the task.
    places: the place of each image that is inside a file; None for any other.

  Raises:
    RowError: the record is not a question.
    InputError: the record names a metric that does not exist.
  """
  images, blanks = _read_images(record, folder, places)
  if "conversations" in record:
    question, answer = _read_turns(record)
    answers: Any = [answer]
  else:
    question, answers = record.get("question"), record.get("answers")
    if not isinstance(question, str) or answers is None:
      raise _malformed('neither "conversations" nor "question" and "answers"')
  question = question.strip()
  words = question.replace(MARK, "").strip()
  if not words:
    raise _malformed("the question is empty")
  id = record.get("id")
  if isinstance(id, bool) or not isinstance(id, str | int):
    raise _malformed('"id" is missing or neither text nor an integer')
  task = record.get("task")
  if task is None:
    named = (name for pattern, name in rules if pattern.search(words))
    task = next(named, default)
  if not isinstance(task, str) or not task:
    raise _malformed('"task" is not text')
  choices = record.get("choices")
  choices = None if choices is None else _strings(choices, "choices")
  if choices and len(choices) > len(LETTERS):
    raise _malformed(f"{len(choices)} choices, at most {len(LETTERS)} have a letter")
  metric = record.get("metric", "multiple_choice" if choices else "exact_match")
  # A value that is not a string is looked up by its repr, which the message shows.
  LOOKUP.find(metric if isinstance(metric, str) else repr(metric), f"{where}: metric")
  answers = _strings(answers, "answers", some_empty=metric in ANNOTATED)
  if metric in LETTERED:
    answers = _letter_answers(answers, choices)
    question = ask_choices(question, choices) if choices else question
  question = _check_marks(question, len(images), blanks)
  return Question(
    id=id,
    task=task,
    images=images,
    question=question,
    answers=answers,
    metric=metric,
    choices=choices,
    category=_read_label(record, "category"),
    group=_read_label(record, "group"),
    where=where,
  )
