"""The definition of a benchmark's reader, and functions that read required fields."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.evaluation.question import SHORT_PROMPT, Question
from mllm_selector_jax.evaluation.question_files import Row
from mllm_selector_jax.types import InputError, RowError


class Source(NamedTuple):
  """A task of the config.

  Attributes:
    name: the name of the benchmark; empty for files in the form of `question`.
    files: the paths of the files.
    folder: the folder among the paths; None if there is none.
  """

  name: str
  files: tuple[str, ...]
  folder: str | None


def _keep(questions: list[Question]) -> list[Question]:
  return questions


class Benchmark(NamedTuple):
  """How the published files of a benchmark are converted to questions.

  Attributes:
    files: the files that it reads, for messages.
    rows: reads the rows of a source.
    convert: converts a row to a record in the form of `question`; raises RowError.
    finish: converts the list of all questions to the list of those that are asked.
    inside: whether questions are read from the folder; otherwise it only holds images.
  """

  files: str
  rows: Callable[[Source], Iterator[Row]]
  convert: Callable[[Row], dict[str, Any]]
  finish: Callable[[list[Question]], list[Question]] = _keep
  inside: bool = False


def need_files(source: Source, least: int, most: int, what: str) -> Sequence[str]:
  """Returns the files of a source, after a check of their number.

  Args:
    source: the source.
    least, most: the minimum and the maximum of files.
    what: the files to give, for the message.

  Raises:
    InputError: there are too few or too many files.
  """
  if not least <= len(source.files) <= most:
    raise InputError(
      f"evaluate.tasks: {source.name} has {len(source.files)} files; give {what}."
    )
  return source.files


def short(question: str) -> str:
  """Adds the prompt by which LLaVA-1.5 asks for a short answer."""
  return f"{question.strip()}\n{SHORT_PROMPT}"


def text(value: dict[str, Any], *names: str) -> str:
  """Returns the text in the first of several fields that is present.

  Raises:
    RowError: no field is present, or it holds no text.
  """
  field = first(value, *names)
  if not isinstance(field, str) or not field.strip():
    raise RowError("malformed", f'no text in "{names[0]}"')
  return field


def first(value: dict[str, Any], *names: str) -> Any:
  """Returns the first of several fields that is present and not None, or None."""
  return next((value[name] for name in names if value.get(name) is not None), None)


def label(value: dict[str, Any], name: str) -> str | int | None:
  """Returns the id in a field; None if there is none, or no text and no integer."""
  found = value.get(name)
  return found if isinstance(found, str | int) else None


def answer_list(value: dict[str, Any], *names: str) -> list[Any]:
  """Returns the accepted answers; an object stands for the value of its "answer".

  Raises:
    RowError: there are no answers, as in a test split.
  """
  field = first(value, *names)
  listed = field if isinstance(field, list) else [field]
  answers = [item.get("answer") if isinstance(item, dict) else item for item in listed]
  if not answers or any(answer is None for answer in answers):
    raise RowError(
      "malformed", f'no answer in "{names[0]}" (a test split may be published so)'
    )
  return answers


def letter(value: Any, count: int) -> str:
  """Returns the letter of an option.

  Args:
    value: the number of the option, from 0.
    count: the number of options.

  Raises:
    RowError: there is no such option.
  """
  try:
    number = int(value)
  except (TypeError, ValueError):
    number = -1
  if isinstance(value, bool) or not 0 <= number < count:
    raise RowError("malformed", f"answer {value!r}: there are {count} choices")
  return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number]


def choice_list(value: dict[str, Any], name: str) -> list[str]:
  """Returns the options of a multiple choice.

  Raises:
    RowError: the field is not a list of 2 to 26 options.
  """
  options = value.get(name)
  if not isinstance(options, list) or not 2 <= len(options) <= 26:
    raise RowError("malformed", f'no list of 2 to 26 choices in "{name}"')
  return [str(option) for option in options]
