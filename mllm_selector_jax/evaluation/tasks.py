"""Tasks of an evaluation: reading their files, naming them, sampling them."""

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

OWN = ""  # name of a source in the one form or LLaVA's
_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_-]+):(?!//)(.*)", re.DOTALL)
Rules = Sequence[tuple[re.Pattern, str]]


def parse_tasks(value: str | Sequence[str] | None) -> list[Source]:
  """What `evaluate.tasks` names.

  Args:
    value: tasks with semicolons between them, or a list of them. A task is files
      with commas: in the one form or LLaVA's, or as a benchmark publishes them behind
      its name and a colon (`vqav2:questions.json,annotations.json`). A folder among
      them holds the task's images.

  Raises:
    InputError: an unknown benchmark, or one without files.
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
        + f"; there are {', '.join(BENCHMARKS)}."
      )
    names = storage.split_paths(rest)
    folders = [item for item in names if storage.is_folder(item)]
    if len(folders) > 1:
      raise InputError(f"evaluate.tasks={part}: {len(folders)} folders; give one.")
    if not names and name:
      raise InputError(
        f"evaluate.tasks={part}: no file. Give {name}:{BENCHMARKS[name].files}."
      )
    held = tuple(item for item in names if item not in folders)
    folder = folders[0] if folders else None
    if name:
      sources.append(Source(name, held, folder))
    else:
      sources += [Source(OWN, (path,), folder) for path in held]
  return sources


def list_files(source: Source) -> list[str]:
  """The files that a source's questions follow from, images apart."""
  found = list(source.files)
  if source.name and BENCHMARKS[source.name].inside and source.folder:
    for folder, _, names in sorted(os.walk(source.folder)):
      found += [
        os.path.join(folder, name)
        for name in sorted(names)
        if name.endswith((".txt", ".json"))
      ]
  return found


def _read_source(source: Source, rules: Rules) -> Iterator[Question | Aside]:
  """Every row of a source as a question, or why it is none."""
  known = BENCHMARKS.get(source.name)
  for row, default in _read_rows(source):
    record = row.value
    try:
      if row.error is not None:
        raise row.error
      if known:
        record = {"task": source.name, **known.convert(row)}
      yield make_question(record, rules, default, row.where, source.folder, row.place)
    except RowError as error:
      id = record.get("id")
      id = id if isinstance(id, str | int) else None
      yield Aside(id, source.name or None, error.reason, f"{row.where}: {error.detail}")


def _read_rows(source: Source) -> Iterator[tuple[question_files.Row, str]]:
  """Rows, each with the task of a record that names none."""
  if known := BENCHMARKS.get(source.name):
    yield from ((row, source.name) for row in known.rows(source))
    return
  for path in source.files:
    stem = os.path.splitext(os.path.basename(path))[0]
    rows = list(question_files.read_rows(path))
    names = [_find_name(row) for row in rows]
    several = len(set(names) - {None}) > 1
    for row, name in zip(rows, names, strict=True):
      yield row, name if several and name else stem


def _find_name(row: question_files.Row) -> str | None:
  """What the record says that it comes from."""
  values = () if row.error else (row.value.get(field) for field in FIELDS)
  return next((str(v) for v in values if isinstance(v, str | int) and v != ""), None)


def compile_rules(rules: Sequence[tuple[str, str]]) -> list[tuple[re.Pattern, str]]:
  """The rules with their patterns compiled.

  Raises:
    InputError: a pattern is no regular expression.
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
  """At most `limit` questions, as many of each task as can be, in their order.

  Which ones depends on the seed and on each question's task and id alone;
  smaller limits give subsets. Questions of a group stay together.
  """
  groups: dict[tuple[str, str], list[int]] = {}
  for place, question in enumerate(questions):
    own = repr(question.id) if question.group is None else f"group {question.group}"
    groups.setdefault((question.task, own), []).append(place)

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
  question, the turn after it the answer. Any other of the one form has "id",
  "question" and "answers"; see `questions`.

  Args:
    tasks: see `parse_tasks`.
    rules: (task, regular expression over the question); the first that matches
      names the task of a record that has no "task". If none does, its "source" or
      "data_source" does where the file has several of them, or else the file's name.
    limit: keep at most so many questions, evenly over tasks; None keeps all.
    seed: of that sample.

  Returns:
    The questions in file order, and the rows that are none.

  Raises:
    InputError: no files, a missing, unreadable or empty one, a source without any
      question, an unknown metric or benchmark, a broken rule or limit.
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
    found, left = _read_whole(source, compiled, seen)
    if not found:
      first = f" The first: {left[0].reason}: {left[0].detail}." if left else ""
      hint = "" if source.name else _HINT
      raise InputError(
        f"{', '.join(source.files) or source.folder}: no question found; rows set"
        f" aside: {len(left)}.{first}{hint}"
      )
    questions += found
    aside += left
  if limit is not None and not (questions := sample_evenly(questions, limit, seed)):
    raise InputError(
      f"evaluate.limit={limit} is less than one group of questions that are marked"
      " together; raise it."
    )
  return questions, aside


_HINT = (
  " If the file is a benchmark's own, put its name before it, as in"
  f" vqav2:questions.json,annotations.json; there are {', '.join(BENCHMARKS)}."
)


def _read_whole(
  source: Source, rules: Rules, seen: set[tuple[str, str]]
) -> tuple[list[Question], list[Aside]]:
  """A source's questions, the first of each task and id, and the other rows."""
  found, left = [], []
  for item in _read_source(source, rules):
    if isinstance(item, Aside):
      left.append(item)
    elif (key := (item.task, repr(item.id))) in seen:
      detail = f"{item.where}: {item.id!r} stands twice in {item.task}"
      left.append(Aside(item.id, item.task, "duplicate id", detail))
    else:
      seen.add(key)
      found.append(item)
  return (BENCHMARKS[source.name].finish(found) if source.name else found), left
