"""Reads the tasks of an evaluation: their files, their names, and samples of them."""

import difflib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence

from mllm_selector_jax import storage
from mllm_selector_jax.data.pool.sources import FIELDS
from mllm_selector_jax.evaluation import question_files
from mllm_selector_jax.evaluation.published import BENCHMARKS, Source
from mllm_selector_jax.evaluation.question import Aside, Question, make_question
from mllm_selector_jax.types import InputError, RowError

__all__ = [
  "Aside",
  "Question",
  "Source",
  "list_files",
  "parse_tasks",
  "read_questions",
  "sample_evenly",
]

OWN = ""  # the name of a source whose records are not those of a known benchmark
_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_-]+):(?!//)(.*)", re.DOTALL)
Rules = Sequence[tuple[re.Pattern, str]]


def parse_tasks(value: str | Sequence[str] | None) -> list[Source]:
  """Parses `evaluate.tasks`.

  Args:
    value: tasks separated by semicolons, or a list of tasks. A task is one or more
      files separated by commas. Their records are in the form of `question` or in
      LLaVA's. Files as a benchmark publishes them follow its name and a colon
      (`vqav2:questions.json,annotations.json`). A folder among the files is that of
      the task's images.

  Raises:
    InputError: a benchmark is unknown, or it is given without files.
  """
  parts = value.split(";") if isinstance(value, str) else list(value or ())
  sources = []
  for part in (str(part).strip() for part in parts):
    named = _NAMED.fullmatch(part)
    name, rest = (named[1].lower(), named[2]) if named else (OWN, part)
    if name and name not in BENCHMARKS:
      near = difflib.get_close_matches(name, BENCHMARKS, 1)
      raise InputError(
        f"evaluate.tasks has the benchmark {name!r}"
        + (f" (did you mean {near[0]}?)" if near else "")
        + f"; allowed are {', '.join(BENCHMARKS)}."
      )
    names = storage.split_paths(rest)
    folders = [item for item in names if storage.is_folder(item)]
    if len(folders) > 1:
      raise InputError(f"evaluate.tasks={part}: {len(folders)} folders; give one.")
    if not names and name:
      raise InputError(
        f"evaluate.tasks={part}: no file. Give {name}:{BENCHMARKS[name].files}."
      )
    files = tuple(item for item in names if item not in folders)
    folder = folders[0] if folders else None
    if name:
      sources.append(Source(name, files, folder))
    else:
      sources += [Source(OWN, (path,), folder) for path in files]
  return sources


def list_files(source: Source) -> list[str]:
  """Lists the files from which the questions of a source are read, without images."""
  files = list(source.files)
  if source.name and BENCHMARKS[source.name].inside and source.folder:
    for folder, _, names in sorted(os.walk(source.folder)):
      files += [
        os.path.join(folder, name)
        for name in sorted(names)
        if name.endswith((".txt", ".json"))
      ]
  return files


def _read_source(source: Source, rules: Rules) -> Iterator[Question | Aside]:
  """Converts every row of a source to a question, or sets it aside with a reason."""
  benchmark = BENCHMARKS.get(source.name)
  for row, default in _read_rows(source):
    record = row.value
    try:
      if row.error is not None:
        raise row.error
      if benchmark:
        record = {"task": source.name, **benchmark.convert(row)}
      yield make_question(record, rules, default, row.where, source.folder, row.places)
    except RowError as error:
      id = record.get("id")
      id = id if isinstance(id, str | int) else None
      yield Aside(id, source.name or None, error.reason, f"{row.where}: {error.detail}")


def _read_rows(source: Source) -> Iterator[tuple[question_files.Row, str]]:
  """Iterates over the rows, each with its task in case its record names none."""
  if benchmark := BENCHMARKS.get(source.name):
    yield from ((row, source.name) for row in benchmark.rows(source))
    return
  for path in source.files:
    stem = os.path.splitext(os.path.basename(path))[0]
    rows = list(question_files.read_rows(path))
    names = [_find_name(row) for row in rows]
    several = len(set(names) - {None}) > 1
    for row, name in zip(rows, names, strict=True):
      yield row, name if several and name else stem


def _find_name(row: question_files.Row) -> str | None:
  """Returns the data set that a record names as its source, or None."""
  values = () if row.error else (row.value.get(field) for field in FIELDS)
  return next((str(v) for v in values if isinstance(v, str | int) and v != ""), None)


def compile_rules(rules: Sequence[tuple[str, str]]) -> list[tuple[re.Pattern, str]]:
  """Compiles rules (task, pattern) to (compiled pattern, task).

  Raises:
    InputError: a pattern is not a regular expression.
  """
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
  """Samples at most `limit` questions, evenly over tasks, and keeps their order.

  The sample depends only on the seed and on the task and id of each question, and a
  smaller limit gives a subset. Questions of a group are kept or dropped together.
  """
  groups: dict[tuple[str, str], list[int]] = {}
  for place, question in enumerate(questions):
    name = repr(question.id) if question.group is None else f"group {question.group}"
    groups.setdefault((question.task, name), []).append(place)

  def digest(key: tuple[str, str]) -> bytes:
    text = f"{seed}\0{key[0]}\0{key[1]}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

  taken: dict[str, int] = {}
  ranked = []
  for order, key in sorted((digest(key), key) for key in groups):
    taken[key[0]] = taken.get(key[0], 0) + len(groups[key])
    ranked.append((taken[key[0]], order, key))
  places: list[int] = []
  for _, _, key in sorted(ranked):
    if len(places) + len(groups[key]) > limit:
      break
    places += groups[key]
  return [questions[place] for place in sorted(places)]


def read_questions(
  tasks: str | Sequence[str],
  rules: Sequence[tuple[str, str]] = (),
  limit: int | None = None,
  seed: int = 0,
) -> tuple[list[Question], list[Aside]]:
  """Reads the questions of an evaluation.

  A record with "conversations" is in LLaVA's form: its first human turn is the
  question, and the next answer is the accepted answer. Any other record has "id",
  "question" and "answers"; see `question`.

  Args:
    tasks: the tasks; see `parse_tasks`.
    rules: pairs (task, regular expression). The first expression that matches the
      question of a record without "task" names its task. If none matches, the task is
      the record's "source" or "data_source", if the file has several of these, and
      otherwise the name of the file.
    limit: the maximum of questions, sampled evenly over tasks; None keeps all.
    seed: seed of that sample.

  Returns:
    The questions in file order, and the rows that were set aside.

  Raises:
    InputError: no file is given; a file is missing, unreadable or empty; a source has
      no question; a metric or benchmark is unknown; a rule or the limit is wrong.
  """
  sources = parse_tasks(tasks)
  if not sources:
    raise InputError("No evaluation file is given: name at least one.")
  if limit is not None and limit < 1:
    raise InputError(f"The limit of {limit} questions leaves none: use 1 or more.")
  compiled = compile_rules(rules)
  questions: list[Question] = []
  aside: list[Aside] = []
  seen: set[tuple[str, str]] = set()
  for source in sources:
    source_questions, source_aside = _read_unique(source, compiled, seen)
    if not source_questions:
      first = ""
      if source_aside:
        first = f" The first: {source_aside[0].reason}: {source_aside[0].detail}."
      hint = "" if source.name else _HINT
      raise InputError(
        f"{', '.join(source.files) or source.folder}: no question found; rows set"
        f" aside: {len(source_aside)}.{first}{hint}"
      )
    questions += source_questions
    aside += source_aside
  if limit is not None and not (questions := sample_evenly(questions, limit, seed)):
    raise InputError(
      f"evaluate.limit={limit} is less than one group of questions that are marked"
      " together; raise it."
    )
  return questions, aside


_HINT = (
  " If the file is one that a benchmark publishes, put the name of the benchmark before"
  " it, as in vqav2:questions.json,annotations.json; the names are"
  f" {', '.join(BENCHMARKS)}."
)


def _read_unique(
  source: Source, rules: Rules, seen: set[tuple[str, str]]
) -> tuple[list[Question], list[Aside]]:
  """Reads a source, and sets rows aside that repeat a task and id.

  Args:
    source: the source.
    rules: as for `make_question`.
    seen: the tasks and ids of the sources before; those of this one are added.

  Returns:
    The questions, and the rows that were set aside.
  """
  questions, aside = [], []
  for item in _read_source(source, rules):
    if isinstance(item, Aside):
      aside.append(item)
    elif (key := (item.task, repr(item.id))) in seen:
      detail = f"{item.where}: the id {item.id!r} repeats in the task {item.task}"
      aside.append(Aside(item.id, item.task, "duplicate id", detail))
    else:
      seen.add(key)
      questions.append(item)
  if source.name:
    questions = BENCHMARKS[source.name].finish(questions)
  return questions, aside
