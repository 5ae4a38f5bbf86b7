"""Evaluation questions: reading their files, naming their tasks, sampling them."""

import hashlib
import os
import re
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.data import storage
from mllm_selector_jax.data.records import read_records
from mllm_selector_jax.evaluation.metrics import METRICS
from mllm_selector_jax.types import InputError, RowError

MARK = "<image>"
LETTERS = string.ascii_uppercase


class Question(NamedTuple):
  """One question with its accepted answers.

  Attributes:
    id: the file's own, verbatim; unique inside its task.
    task: what its score is averaged under.
    image: path inside the image folder, None for text alone.
    question: as the model is asked it, options included.
    answers: accepted ones; letters if the metric is "multiple_choice".
    metric: a key of `metrics.METRICS`.
    choices: the options of a multiple choice, None elsewhere.
  """

  id: str | int
  task: str
  image: str | None
  question: str
  answers: tuple[str, ...]
  metric: str = "exact_match"
  choices: tuple[str, ...] | None = None


class Aside(NamedTuple):
  """A question that cannot be asked, with the reason it is counted under.

  Attributes:
    id, task: None where the row does not say.
    reason: a key of `types.REASONS`.
    detail: what was found, and where.
  """

  id: str | int | None
  task: str | None
  reason: str
  detail: str


def _malformed(detail: str) -> RowError:
  return RowError("malformed", detail)


def _strings(value: Any, field: str) -> tuple[str, ...]:
  """One string or number, or a list of them, as strings."""
  values = value if isinstance(value, list) else [value]
  for item in values:
    if isinstance(item, bool) or not isinstance(item, str | int | float):
      raise _malformed(f'"{field}" holds {type(item).__name__}, not text')
  out = tuple(str(item).strip() for item in values)
  if not out or not all(out):
    raise _malformed(f'"{field}" is empty')
  return out


def _read_image(record: dict) -> str | None:
  image = record.get("image")
  if isinstance(image, list):
    if len(image) > 1:
      raise RowError("several images", f"{len(image)} images")
    image = image[0] if image else None
  if image is not None and not isinstance(image, str):
    raise _malformed(f'"image" is {type(image).__name__}, not a path')
  return image or None


def _read_turns(record: dict) -> tuple[str, str]:
  """The first human turn and the first answer after it."""
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
  """Answers of a multiple choice as letters; they may be given as options."""
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


def _ask_choices(question: str, choices: tuple[str, ...]) -> str:
  """The question with its lettered options, in LLaVA's words."""
  lines = [
    f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)
  ]
  return "\n".join(
    [
      question,
      *lines,
      "Answer with the option's letter from the given choices directly.",
    ]
  )


def _read_question(
  record: dict, rules: Sequence[tuple[re.Pattern, str]], stem: str, where: str
) -> Question:
  """One record as a question.

  Raises:
    RowError: the record is not a question.
    InputError: it asks for a metric that does not exist.
  """
  image = _read_image(record)
  if "conversations" in record:
    question, answer = _read_turns(record)
    answers: Any = [answer]
    marks = question.count(MARK)
    if marks != (image is not None):
      raise RowError(
        "image marks", f"{marks} in the question, {int(image is not None)} image"
      )
  else:
    question, answers = record.get("question"), record.get("answers")
    if not isinstance(question, str) or answers is None:
      raise _malformed('neither "conversations" nor "question" and "answers"')
  if image is not None:
    question = question.replace(MARK, "")
  question = question.strip()
  if not question:
    raise _malformed("the question is empty")
  id = record.get("id")
  if isinstance(id, bool) or not isinstance(id, str | int):
    raise _malformed('"id" is missing or neither text nor an integer')
  task = record.get("task")
  if task is None:
    named = (name for pattern, name in rules if pattern.search(question))
    task = next(named, stem)
  if not isinstance(task, str) or not task:
    raise _malformed('"task" is not text')
  choices = record.get("choices")
  choices = None if choices is None else _strings(choices, "choices")
  if choices and len(choices) > len(LETTERS):
    raise _malformed(f"{len(choices)} choices, at most {len(LETTERS)} have a letter")
  metric = record.get("metric", "multiple_choice" if choices else "exact_match")
  if not isinstance(metric, str) or metric not in METRICS:
    raise InputError(
      f"{where}: the metric {metric!r} is unknown. Use one of {', '.join(METRICS)}."
    )
  answers = _strings(answers, "answers")
  if metric == "multiple_choice":
    answers = _letter_answers(answers, choices)
    question = _ask_choices(question, choices) if choices else question
  return Question(id, task, image, question, answers, metric, choices)


def _compile_rules(rules: Sequence[tuple[str, str]]) -> list[tuple[re.Pattern, str]]:
  compiled = []
  for name, pattern in rules:
    try:
      compiled.append((re.compile(pattern), name))
    except re.error as error:
      raise InputError(
        f"The rule of task {name!r}, {pattern!r}, is not a regular expression: {error}."
      ) from None
  return compiled


def sample_evenly(
  questions: Sequence[Question], limit: int, seed: int
) -> list[Question]:
  """At most `limit` questions, as many of each task as can be, in their order.

  Which ones depends on the seed and on each question's task and id alone;
  smaller limits give subsets.
  """

  def digest(question: Question) -> bytes:
    key = f"{seed}\0{question.task}\0{question.id!r}"
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()

  taken: dict[str, int] = {}
  ranked = []
  for key, place in sorted((digest(q), i) for i, q in enumerate(questions)):
    task = questions[place].task
    taken[task] = taken.get(task, 0) + 1
    ranked.append((taken[task], key, place))
  places = sorted(place for _, _, place in sorted(ranked)[:limit])
  return [questions[place] for place in places]


def read_questions(
  files: Sequence[str],
  rules: Sequence[tuple[str, str]] = (),
  limit: int | None = None,
  seed: int = 0,
) -> tuple[list[Question], list[Aside]]:
  """Reads evaluation files: question JSONL or LLaVA conversations.

  A record with "conversations" is in LLaVA's form: its first human turn is the
  question, the turn after it the answer. Any other has "id", "question" and
  "answers", and may have "image", "metric", "task" and "choices".

  Args:
    files: JSON lists or JSONL.
    rules: (task, regular expression over the question); the first that matches
      names a record that has no "task"; if none does, the file's name does.
    limit: keep at most so many questions, evenly over tasks; None keeps all.
    seed: of that sample.

  Returns:
    The questions in file order, and the rows that are none.

  Raises:
    InputError: no files, a missing, unreadable or empty one, one without any
      question, an unknown metric, a broken rule or limit.
  """
  if not files:
    raise InputError("No evaluation file is given: name at least one.")
  if limit is not None and limit < 1:
    raise InputError(f"The limit of {limit} questions leaves none: use 1 or more.")
  compiled = _compile_rules(rules)
  questions: list[Question] = []
  aside: list[Aside] = []
  seen: set[tuple[str, str]] = set()
  for path in map(os.fspath, files):
    stem = os.path.splitext(os.path.basename(path))[0]
    before, asided = len(questions), len(aside)
    if not storage.is_file(path):
      raise InputError(f"{path}: the evaluation file is not there.")
    if not storage.measure(path):
      raise InputError(f"{path}: the evaluation file is empty.")
    for row, record in enumerate(read_records(path)):
      where = f"{path}, row {row} at byte {record.offset}"
      id = task = None
      try:
        if record.reason is not None:
          raise RowError(record.reason, record.detail)
        id = record.value.get("id")
        question = _read_question(record.value, compiled, stem, where)
        task = question.task
        if (task, repr(question.id)) in seen:
          raise RowError("duplicate id", f"{question.id!r} stands twice in {task}")
      except RowError as error:
        id = id if isinstance(id, str | int) else None
        aside.append(Aside(id, task, error.reason, f"{where}: {error.detail}"))
        continue
      seen.add((task, repr(question.id)))
      questions.append(question)
    if len(questions) == before:
      raise InputError(
        f"{path}: no question found; rows set aside: {len(aside) - asided}. The"
        f" first: {aside[asided].reason}: {aside[asided].detail}."
      )
  if limit is not None:
    questions = sample_evenly(questions, limit, seed)
  return questions, aside
