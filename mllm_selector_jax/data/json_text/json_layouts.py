"""Finds how a file of JSON holds its records: list, lines, objects, or one object.

One object whose one list of objects is the records (`{"data": [...]}`,
`{"info": {}, "annotations": [...]}`) is read as that list, and one whose members are
the records (`{"id": {...}, ...}`) as those. What looks alike and is no pool is named.
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
# A record has one of the first, or two of the others; a turn has one of the last.
_TALK = {"conversations", "conversation", "messages", "texts", "dialogue", "dialog"}
_WORDS = {
  "image", "images", "instruction", "query", "prompt", "question", "history", "answer",
  "answers", "response", "output", "completion", "chosen", "caption", "text", "input",
}  # fmt: skip
_SPEAKER = {"from", "role", "user", "speaker"}
_BETWEEN = ", \t\r\n"  # what may stand between objects
# Fields of the files that describe a data set: state.json, dataset_info.json.
_DESCRIPTIONS = ({"_data_files", "_fingerprint"}, {"features", "citation"})
_HUB_KEYS = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url"}


class JsonLayout(NamedTuple):
  """How a file holds its records.

  Attributes:
    kind: "list" (several may follow one another), "lines" (an object a line),
      "objects" (one after the other, whatever their lines), "wrapped" (a list that is
      a member of one object) or "keyed" (the members of one object).
    offset: of the first bracket: the list's, or the first object's.
  """

  kind: str
  offset: int


class _Member(NamedTuple):
  """A member of an object: its key, where its value begins, and what that is.

  Attributes:
    mark: the value's first character.
    first: a list's first element, or the value itself if it is an object.
  """

  key: str
  place: int
  mark: str
  first: Any


def find_layout(path: str, file: io.BufferedIOBase) -> JsonLayout:
  """How an open file holds its records.

  Raises:
    InputError: it holds none.
  """
  offset, first = _find_start(path, file)
  file.seek(offset)
  if first == b"[":
    line = _read_text(file.readline(window.CHUNK))
    # A list of turns is a record, and stands on a line of its own.
    return JsonLayout(LINES if parsing.is_turn(peek(line, 0)) else LIST, offset)
  line = _read_text(file.readline(window.MOST_BYTES))
  end = Brackets("{").find_end(line, 0)
  if end is not None:
    rest = line[end:].strip(_BETWEEN)
    if rest or _next_character(file):
      return JsonLayout(OBJECTS if rest.startswith("{") else LINES, offset)
    found, alone = _judge(path, line), LINES
  else:
    file.seek(offset)
    text = _read_text(file.read(window.MOST_BYTES))
    end = Brackets("{").find_end(text, 0)
    if end is not None and (text[end:].strip(_BETWEEN) or _next_character(file)):
      return JsonLayout(OBJECTS, offset)
    found, alone = _judge(path, text), OBJECTS
    if found is None and end is None:
      # A record too large to be one, or broken; lines after it are read.
      if len(line) < len(text) and not text[len(line) :].lstrip().startswith("{"):
        wanted = "an object that ends within its line, or is followed by another"
        raise structure_error(path, file, offset, "neither", f"{wanted}, as in {FORM}")
      alone = LINES
  if found is None:
    return JsonLayout(alone, offset)
  kind, before = found
  return JsonLayout(kind, offset + window.count_bytes(before))


def structure_error(
  path: str, file: io.BufferedIOBase, offset: int, found: str, expected: str
):
  """The error for what stands where nothing can be told apart any more."""
  return InputError(
    f"{path}, byte {offset:,} (line {line_of(file, offset):,}): expected {expected},"
    f" found {found or 'the end of the file'}."
  )


def line_of(file: io.BufferedIOBase, offset: int) -> int:
  """The line, from 1, in which a byte stands."""
  line = 1
  file.seek(0)
  while offset > 0 and (chunk := file.read(min(offset, window.CHUNK))):
    line += chunk.count(b"\n")
    offset -= len(chunk)
  return line


def _find_start(path: str, file: io.BufferedIOBase) -> tuple[int, bytes]:
  """Where the first character stands that is not blank, and that character."""
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
  """An object's members, as far as the text reaches."""
  place = _skip(text, 1)
  while text[place : place + 1] == '"':
    try:
      key, place = parsing.DECODER.raw_decode(text, place)
    except ValueError:
      return
    place = _skip(text, place)
    start = _skip(text, place + 1)
    mark = text[start : start + 1]
    if text[place : place + 1] != ":" or not mark:
      return
    end = Brackets(mark).find_end(text, start)
    if mark == "[" or (mark == "{" and end is not None):
      yield _Member(key, start, mark, peek(text, start))
    elif end is not None:
      yield _Member(key, start, mark, None)
    if end is None:
      return
    place = _skip(text, end)
    if text[place : place + 1] == ",":
      place = _skip(text, place + 1)


def peek(text: str, start: int) -> Any:
  """The first element of a list, or an object; None if it cannot be read."""
  if text[start] == "[":
    start = _skip(text, start + 1)
  try:
    return parsing.DECODER.raw_decode(text, start)[0]
  except (ValueError, RecursionError):
    return None


def _skip(text: str, place: int) -> int:
  blanks = _BLANK.match(text, place)
  assert blanks is not None  # it also matches no blank at all
  return blanks.end()


def is_record(value: Any) -> bool:
  """Whether an object is itself a sample, by its fields."""
  if not isinstance(value, dict):
    return False
  return bool(value.keys() & _TALK) or len(value.keys() & _WORDS) > 1


def _judge(path: str, text: str) -> tuple[str, str] | None:
  """The kind of one object that is a pool, and the text before its records.

  Returns:
    None for an object that is a record, or nothing that is known.
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
  of_records = [member for member in lists if is_record(member.first)]
  if len(of_records) > 1 or (len(lists) > 1 and not of_records):
    names = ", ".join(member.key for member in of_records or lists)
    raise InputError(
      f"{path}: one object with several lists of objects ({names[:200]}); expected"
      f" {FORM}. Write the list that is meant to a file of its own."
    )
  if found := of_records or lists:
    return WRAPPED, text[: found[0].place]
  if objects and len(objects) == len(members):
    return (KEYED, "") if all(is_record(m.first) for m in objects) else None
  return None


def _refuse_others(path: str, fields: set[str], objects: list[_Member]) -> None:
  """Names the index files that stand beside pools and hold no records.

  Raises:
    InputError: it is one of them.
  """
  inner = (
    set().union(*(member.first.keys() for member in objects)) if objects else set()
  )
  names = ", ".join(member.key for member in objects)[:200]
  if {"root", "annotation"} <= inner:
    files = ", ".join(str(m.first.get("annotation")) for m in objects)[:200]
    raise InputError(
      f"{path}: a meta file as InternVL has them, which names data sets ({names}). Give"
      f" their annotations as pool.data ({files}), or a YAML mixture of them, and their"
      " roots as pool.images."
    )
  if objects and all(m.first.keys() & _HUB_KEYS and not _talks(m) for m in objects):
    files = ", ".join(str(m.first.get("file_name")) for m in objects)[:200]
    raise InputError(
      f"{path}: a dataset_info.json as LLaMA-Factory has it, which names data sets"
      f" ({names}). Give their files as pool.data ({files})."
    )
  described = any(keys <= fields or keys <= inner for keys in _DESCRIPTIONS)
  if described or fields == {"splits"}:  # the latter is a dataset_dict.json
    raise InputError(
      f"{path}: describes a data set of Hugging Face's datasets, and holds no record."
      " Give the folder that it lies in as pool.data."
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
