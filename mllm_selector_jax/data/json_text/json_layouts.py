"""Finds how a JSON file holds its records: a list, lines, objects, or one object.

If a file is one object that has a single list of objects (`{"data": [...]}`,
`{"info": {}, "annotations": [...]}`), the elements of this list are the records. If
all members of the object are records (`{"id": {...}, ...}`), these are read. Index
files that look similar but hold no records are refused, with what to give instead.
"""

import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from mllm_selector_jax.data.files.stand_ins import name_stranger
from mllm_selector_jax.data.json_text import parsing, window
from mllm_selector_jax.data.json_text.brackets import Brackets
from mllm_selector_jax.types import InputError

LIST, LINES, OBJECTS, WRAPPED, KEYED = "list", "lines", "objects", "wrapped", "keyed"
FORM = "a JSON list of records ([{...}, ...]) or JSONL (one {...} a line)"
SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_BLANK = re.compile(r"[ \t\r\n]*")
# An object is taken for a record if it has one field of `_TALK` or two of `_WORDS`, and
# for a turn if it has one of `_SPEAKER`.
_TALK = {"conversations", "conversation", "messages", "texts", "dialogue", "dialog"}
_WORDS = {
  "image", "images", "instruction", "query", "prompt", "question", "history", "answer",
  "answers", "response", "output", "completion", "chosen", "caption", "text", "input",
  "problem", "solution",
}  # fmt: skip
_SPEAKER = {"from", "role", "user", "speaker"}
_BETWEEN = ", \t\r\n"  # characters that may separate objects
# Fields of files that describe a data set: state.json, dataset_info.json.
_DESCRIPTIONS = ({"_data_files", "_fingerprint"}, {"features", "citation"})
_HUB_KEYS = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url"}


class JsonLayout(NamedTuple):
  """How a file holds its records.

  Attributes:
    kind: "list" (one or several lists), "lines" (one object per line), "objects"
      (consecutive objects, however they are divided into lines), "wrapped" (a list
      that is a member of one object) or "keyed" (the members of one object).
    offset: the byte of the first bracket, of the list or of the first object.
  """

  kind: str
  offset: int


class _Member(NamedTuple):
  """A member of a JSON object.

  Attributes:
    key: the member's name.
    start: the index of the value's first character.
    mark: the value's first character.
    first: the first element if the value is a list, or the value itself if it is an
      object; None for other values.
  """

  key: str
  start: int
  mark: str
  first: Any


def find_layout(path: str, file: io.BufferedIOBase) -> JsonLayout:
  """Finds how an open file holds its records.

  Args:
    path: the file's path, for messages.
    file: the open file; its position changes.

  Raises:
    InputError: the file holds no records.
  """
  offset, first = _find_start(path, file)
  file.seek(offset)
  if first == b"[":
    line = _read_text(file.readline(window.CHUNK))
    # A list of turns is a record; such a file has one on each line.
    return JsonLayout(LINES if parsing.is_turn(peek(line, 0)) else LIST, offset)
  line = _read_text(file.readline(window.MOST_BYTES))
  end = Brackets("{").find_end(line, 0)
  if end is not None:
    rest = line[end:].strip(_BETWEEN)
    if rest or _next_character(file):
      return JsonLayout(OBJECTS if rest.startswith("{") else LINES, offset)
    records, single_kind = _find_records(path, line), LINES
  else:
    file.seek(offset)
    text = _read_text(file.read(window.MOST_BYTES))
    end = Brackets("{").find_end(text, 0)
    if end is not None and (text[end:].strip(_BETWEEN) or _next_character(file)):
      return JsonLayout(OBJECTS, offset)
    records, single_kind = _find_records(path, text), OBJECTS
    if records is None and end is None:
      # The first record is broken or too large; the lines after it can be read.
      if len(line) < len(text) and not text[len(line) :].lstrip().startswith("{"):
        expected = "an object that ends within its line, or is followed by another"
        raise structure_error(
          path, file, offset, "neither", f"{expected}, as in {FORM}"
        )
      single_kind = LINES
  if records is None:
    return JsonLayout(single_kind, offset)
  kind, before = records
  return JsonLayout(kind, offset + window.count_bytes(before))


def structure_error(
  path: str, file: io.BufferedIOBase, offset: int, found: str, expected: str
):
  """Makes the error for a fault after which records cannot be told apart.

  Args:
    path: the file's path.
    file: the open file, which is read to count lines.
    offset: the byte of the fault.
    found: what stands there; "" for the end of the file.
    expected: what should stand there.
  """
  return InputError(
    f"{path}, byte {offset:,} (line {line_of(file, offset):,}): expected {expected},"
    f" found {found or 'the end of the file'}."
  )


def line_of(file: io.BufferedIOBase, offset: int) -> int:
  """Returns the number of the line, counted from 1, that holds a byte."""
  line = 1
  file.seek(0)
  while offset > 0 and (chunk := file.read(min(offset, window.CHUNK))):
    line += chunk.count(b"\n")
    offset -= len(chunk)
  return line


def _find_start(path: str, file: io.BufferedIOBase) -> tuple[int, bytes]:
  """Returns the offset of the first bracket, and the bracket.

  Raises:
    InputError: the file is blank, or begins with another character.
  """
  head = file.read(512)
  if not head.removeprefix(_BOM):
    raise InputError(f"{path}: the pool file is empty; expected {FORM}.")
  offset = len(_BOM) if head.startswith(_BOM) else 0
  file.seek(offset)
  while chunk := file.read(window.CHUNK):
    if rest := chunk.lstrip(SPACE):
      offset += len(chunk) - len(rest)
      if rest[:1] in (b"[", b"{"):
        return offset, rest[:1]
      error = structure_error(path, file, offset, f"{rest[:12]!r}", FORM)
      stranger = name_stranger(head)
      raise InputError(f"{error} It is {stranger}.") if stranger else error
    offset += len(chunk)
  raise InputError(f"{path}: the pool file is blank; expected {FORM}.")


def _read_text(data: bytes) -> str:
  return data.decode("utf-8", "surrogateescape")


def _next_character(file: io.BufferedIOBase) -> bytes:
  while chunk := file.read(window.CHUNK):
    if rest := chunk.lstrip(SPACE):
      return rest[:1]
  return b""


def _list_members(text: str) -> Iterator[_Member]:
  """Yields the members of an object, as far as the text reaches."""
  index = _skip(text, 1)
  while text[index : index + 1] == '"':
    try:
      key, index = parsing.DECODER.raw_decode(text, index)
    except ValueError:
      return
    index = _skip(text, index)
    start = _skip(text, index + 1)
    mark = text[start : start + 1]
    if text[index : index + 1] != ":" or not mark:
      return
    end = Brackets(mark).find_end(text, start)
    if mark == "[" or (mark == "{" and end is not None):
      yield _Member(key, start, mark, peek(text, start))
    elif end is not None:
      yield _Member(key, start, mark, None)
    if end is None:
      return
    index = _skip(text, end)
    if text[index : index + 1] == ",":
      index = _skip(text, index + 1)


def peek(text: str, start: int) -> Any:
  """Parses the object, or the first element of the list, that begins at `start`.

  Returns:
    None if it cannot be parsed.
  """
  if text[start] == "[":
    start = _skip(text, start + 1)
  try:
    return parsing.DECODER.raw_decode(text, start)[0]
  except (ValueError, RecursionError):
    return None


def _skip(text: str, start: int) -> int:
  """Returns the index of the first character from `start` on that is not blank."""
  blanks = _BLANK.match(text, start)
  assert blanks is not None  # the pattern matches the empty string
  return blanks.end()


def is_record(value: Any) -> bool:
  """Returns whether a value is a record of a pool, by its fields."""
  if not isinstance(value, dict):
    return False
  return bool(value.keys() & _TALK) or len(value.keys() & _WORDS) > 1


def _find_records(path: str, text: str) -> tuple[str, str] | None:
  """Finds the records inside the single object that a file consists of.

  Returns:
    The kind of the layout, and the text before the records; None if the object is a
    record itself, or is not recognised.

  Raises:
    InputError: the object is an index file, or has several lists of objects.
  """
  members = list(_list_members(text))
  fields = {member.key for member in members}
  objects = [m for m in members if m.mark == "{" and isinstance(m.first, dict)]
  _refuse_others(path, fields, objects)
  if is_record(dict.fromkeys(fields)):
    return None
  lists = [
    member
    for member in members
    if member.mark == "["
    and isinstance(member.first, dict)
    and not member.first.keys() & _SPEAKER
  ]
  record_lists = [member for member in lists if is_record(member.first)]
  if len(record_lists) > 1 or (len(lists) > 1 and not record_lists):
    names = ", ".join(member.key for member in record_lists or lists)
    raise InputError(
      f"{path}: one object with several lists of objects ({names[:200]}); expected"
      f" {FORM}. Write the list of records to a file of its own."
    )
  if candidates := record_lists or lists:
    return WRAPPED, text[: candidates[0].start]
  if objects and len(objects) == len(members):
    return (KEYED, "") if all(is_record(m.first) for m in objects) else None
  return None


def _refuse_others(path: str, fields: set[str], objects: list[_Member]) -> None:
  """Refuses index files, which describe or name data sets and hold no records.

  Args:
    path: the file's path.
    fields: the names of the object's members.
    objects: the members whose values are objects.

  Raises:
    InputError: the file is one of them.
  """
  inner = (
    set().union(*(member.first.keys() for member in objects)) if objects else set()
  )
  names = ", ".join(member.key for member in objects)[:200]
  if {"root", "annotation"} <= inner:
    files = ", ".join(str(m.first.get("annotation")) for m in objects)[:200]
    raise InputError(
      f"{path}: a meta file of InternVL, which names data sets ({names}). Give their"
      f" annotations as pool.data ({files}), or a YAML mixture of them, and their roots"
      " as pool.images."
    )
  if objects and all(m.first.keys() & _HUB_KEYS and not _talks(m) for m in objects):
    files = ", ".join(str(m.first.get("file_name")) for m in objects)[:200]
    raise InputError(
      f"{path}: a dataset_info.json of LLaMA-Factory, which names data sets"
      f" ({names}). Give their files as pool.data ({files})."
    )
  described = any(keys <= fields or keys <= inner for keys in _DESCRIPTIONS)
  if described or fields == {"splits"}:  # the latter is a dataset_dict.json
    raise InputError(
      f"{path}: describes a data set of Hugging Face's datasets, and holds no records."
      " Give the folder of this file as pool.data."
    )
  if objects and is_record(dict.fromkeys(fields)) and all(map(_is_column, objects)):
    raise InputError(
      f"{path}: written by pandas column by column. Write it row by row:"
      " `to_json(path, orient='records', lines=True)`."
    )


def _talks(member: _Member) -> bool:
  return bool(member.first.keys() & _TALK)


def _is_column(member: _Member) -> bool:
  return bool(member.first) and all(key.isdecimal() for key in member.first)
