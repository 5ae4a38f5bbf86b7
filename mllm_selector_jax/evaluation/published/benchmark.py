"""What a benchmark's reader is, and reading fields that must be there."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.evaluation.question import SHORT_PROMPT, Question
from mllm_selector_jax.evaluation.question_files import Row
from mllm_selector_jax.types import InputError, RowError


class Source(NamedTuple):
  """What a task of the config names.

  Attributes:
    name: of the benchmark.
    files: its files.
    folder: the folder among them, None without one.
  """

  name: str
  files: tuple[str, ...]
  folder: str | None


def _keep(questions: list[Question]) -> list[Question]:
  return questions


class Benchmark(NamedTuple):
  """How a benchmark's published files become questions.

  Attributes:
    files: what it takes, for people.
    rows: from the source to its rows.
    convert: from a row to a record in the one form; raises RowError.
    finish: from all questions to those that are asked.
    inside: whether the folder is what is read, not only where images are.
  """

  files: str
  rows: Callable[[Source], Iterator[Row]]
  convert: Callable[[Row], dict[str, Any]]
  finish: Callable[[list[Question]], list[Question]] = _keep
  inside: bool = False


def need_files(source: Source, least: int, most: int, what: str) -> Sequence[str]:
  """The source's files.

  Raises:
    InputError: too few or too many.
  """
  if not least <= len(source.files) <= most:
    raise InputError(
      f"evaluate.tasks: {source.name} has {len(source.files)} files; give {what}."
    )
  return source.files


def short(question: str) -> str:
  """A question as LLaVA-1.5 asks for a short answer."""
  return f"{question.strip()}\n{SHORT_PROMPT}"


def text(value: dict[str, Any], *names: str) -> str:
  """The text under the first of these names that is there.

  Raises:
    RowError: none of them is there, or holds no text.
  """
  found = first(value, *names)
  if not isinstance(found, str) or not found.strip():
    raise RowError("malformed", f'no text in "{names[0]}"')
  return found


def first(value: dict[str, Any], *names: str) -> Any:
  return next((value[name] for name in names if value.get(name) is not None), None)


def answer_list(value: dict[str, Any], *names: str) -> list[Any]:
  """The accepted answers; of annotators' objects, their "answer".

  Raises:
    RowError: there are none, as in a test split.
  """
  found = first(value, *names)
  listed = found if isinstance(found, list) else [found]
  answers = [item.get("answer") if isinstance(item, dict) else item for item in listed]
  if not answers or any(answer is None for answer in answers):
    raise RowError(
      "malformed", f'no answer in "{names[0]}" (a test split may be published so)'
    )
  return answers


def letter(value: Any, count: int) -> str:
  """The letter of an option given by its number.

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
  """The options of a multiple choice.

  Raises:
    RowError: fewer than two, or something else.
  """
  found = value.get(name)
  if not isinstance(found, list) or not 2 <= len(found) <= 26:
    raise RowError("malformed", f'no list of 2 to 26 choices in "{name}"')
  return [str(item) for item in found]
