"""Benchmarks whose answers are letters: ScienceQA, MMBench, AI2D."""

import collections
import itertools
import os
import re
from collections.abc import Iterator
from typing import Any

from mllm_selector_jax.evaluation import question_files
from mllm_selector_jax.evaluation.metrics import MMBENCH_LETTERS
from mllm_selector_jax.evaluation.published.benchmark import (
  Benchmark,
  Source,
  choice_list,
  first,
  letter,
  need_files,
  text,
)
from mllm_selector_jax.evaluation.question import LETTERS, Question, ask_choices
from mllm_selector_jax.evaluation.question_files import Row
from mllm_selector_jax.types import InputError, RowError

TURN = 1_000_000  # MMBench's n-th rotation of a row has the row's index plus n TURN


def _read_files(source: Source) -> Iterator[Row]:
  return itertools.chain.from_iterable(map(question_files.read_rows, source.files))


def read_scienceqa(source: Source) -> Iterator[Row]:
  """Reads the test split of problems.json, or Parquet files.

  The split is that of pid_splits.json if it is given, and otherwise that of the field
  "split".
  """
  paths = need_files(source, 1, 99, "problems.json, or Parquet files")
  for path in paths:
    question_files.check_file(path)
  if all(map(question_files.is_parquet, paths)):
    for row in _read_files(source):
      yield row._replace(value={"id": f"row-{row.number}", **row.value})
    return
  need_files(source, 1, 2, "problems.json and optionally pid_splits.json")
  test_ids = None
  if len(paths) == 2:
    test_ids = question_files.read_object(paths[1]).get("test")
    if not isinstance(test_ids, list) or not all(
      isinstance(each, str | int) for each in test_ids
    ):
      raise InputError(f'{paths[1]}: expected the test split\'s ids under "test".')
    test_ids = set(test_ids)
  for row in question_files.read_keyed(paths[0]):
    value = row.value
    split = value.get("split", "test")
    if row.error is None:
      if (value["id"] not in test_ids) if test_ids is not None else split != "test":
        continue
      if image := value.get("image"):
        row = row._replace(value={**value, "image": f"test/{value['id']}/{image}"})
    yield row


def convert_scienceqa(row: Row) -> dict[str, Any]:
  value = row.value
  choices = choice_list(value, "choices")
  hint, question = value.get("hint"), text(value, "question")
  return {
    "id": value.get("id"),
    "image": value.get("image"),
    "question": f"Context: {hint}\n{question}" if hint else question,
    "choices": choices,
    "answers": letter(value.get("answer"), len(choices)),
    "metric": "multiple_choice",
    "category": "image" if value.get("image") else "text",
  }


def _is_none(value: Any) -> bool:
  return value is None or value != value or str(value).lower() in ("", "nan", "none")


def convert_mmbench(row: Row) -> dict[str, Any]:
  value = row.value
  options = itertools.takewhile(
    lambda option: not _is_none(option), (value.get(x) for x in MMBENCH_LETTERS)
  )
  choices = [str(option) for option in options]
  if len(choices) < 2:
    raise RowError("malformed", "fewer than two of the options A, B, ...")
  if _is_none(value.get("answer")):
    raise RowError("malformed", 'no answer in "answer" (a test split has none)')
  if not value.get("image"):
    raise RowError("missing image", "the row holds no image")
  try:
    index = int(value.get("index"))
  except (TypeError, ValueError):
    raise RowError("malformed", '"index" is not a number') from None
  hint, question = value.get("hint"), text(value, "question")
  return {
    "id": index,
    "image": f"index {index}" if row.places else value["image"],
    "question": question if _is_none(hint) else f"{hint}\n{question}",
    "choices": choices,
    "answers": str(value["answer"]),
    "metric": "mmbench",
    "category": value.get("category"),
    "group": str(index % TURN),
  }


def rotate(questions: list[Question]) -> list[Question]:
  """Adds the rotations of the options to MMBench's questions.

  If the published file already holds rotations, the questions are returned as they are.
  Otherwise the n-th rotation moves the options by n places, as LLaVA's evaluation does.
  """
  counts = collections.Counter(question.group for question in questions)
  if any(count > 1 for count in counts.values()):
    return questions
  out = []
  for question in questions:
    out.append(question)
    choices, answer = question.choices, LETTERS.index(question.answers[0])
    stem = question.question.removesuffix(ask_choices("", choices))
    for turn in range(1, len(choices)):
      turned = choices[turn:] + choices[:turn]
      out.append(
        question._replace(
          id=question.id + turn * TURN,
          question=stem + ask_choices("", turned),
          choices=turned,
          answers=(LETTERS[(answer - turn) % len(choices)],),
        )
      )
  return out


def read_ai2d(source: Source) -> Iterator[Row]:
  """Reads Parquet, or the folder of AI2D (`questions/`, `images/`) and test ids."""
  if source.folder is None:
    yield from _read_files(source)
    return
  need_files(source, 0, 1, "AI2D's folder and optionally ai2d_test_ids.csv")
  test_ids = None
  for path in source.files:
    question_files.check_file(path)
    with open(path, encoding="utf-8", errors="replace") as file:
      test_ids = set(re.findall(r"\d+", file.read()))
  questions = os.path.join(source.folder, "questions")
  if not os.path.isdir(questions):
    raise InputError(f"{source.folder}: AI2D's folder has no questions/.")
  for name in sorted(os.listdir(questions)):
    if not name.endswith(".json"):
      continue
    if test_ids and name.split(".")[0] not in test_ids:
      continue
    path = os.path.join(questions, name)
    value = question_files.read_object(path)
    asked = value.get("questions")
    for number, (question, fields) in enumerate(
      asked.items() if isinstance(asked, dict) else ()
    ):
      where = f"{path}, question {number}"
      if not isinstance(fields, dict):
        error = RowError("malformed", "not an object")
        yield Row(path, where, number, {}, (), error)
        continue
      joined = {**fields, "question": question, "image": value.get("imageName")}
      yield Row(path, where, number, joined)


def convert_ai2d(row: Row) -> dict[str, Any]:
  value = row.value
  choices = choice_list(value, "options" if "options" in value else "answerTexts")
  image = text(value, "image")
  return {
    "id": first(value, "questionId", "question_id") or f"row-{row.number}",
    "image": image if row.places or "options" in value else f"images/{image}",
    "question": text(value, "question"),
    "choices": choices,
    "answers": letter(first(value, "answer", "correctAnswer"), len(choices)),
    "metric": "ai2d",
  }


BENCHMARKS = {
  "scienceqa": Benchmark(
    "problems.json,pid_splits.json", read_scienceqa, convert_scienceqa
  ),
  "mmbench": Benchmark(
    "mmbench_dev_20230712.tsv", _read_files, convert_mmbench, rotate
  ),
  "ai2d": Benchmark("ai2d/,ai2d_test_ids.csv", read_ai2d, convert_ai2d, inside=True),
}
