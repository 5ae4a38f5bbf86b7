"""Reads the records of a JSON file, sequentially and at random.

A fault inside a record makes this record malformed, and reading continues. A fault
between records, after which they cannot be told apart, ends the reading with an
`InputError` that names file, byte and line. `json_layouts` finds how a file holds its
records.
"""

import io
import os
from collections.abc import Iterator
from typing import Any

from mllm_selector_jax.data.files import compressed
from mllm_selector_jax.data.json_text import json_layouts, parsing
from mllm_selector_jax.data.json_text.window import (
  CHUNK,
  MOST_BYTES,
  EndsInside,
  Window,
)
from mllm_selector_jax.types import InputError, Record


def read_records(path: str | os.PathLike) -> Iterator[Record]:
  """Yields every record of a file, in order and with bounded memory.

  Raises:
    InputError: the file is missing, empty, cut off, or holds no records.
  """
  path = os.fspath(path)
  try:
    with compressed.open_plain(path) as file:
      layout = json_layouts.find_layout(path, file)
      file.seek(layout.offset)
      if layout.kind == json_layouts.LINES:
        yield from _read_lines(path, file, layout.offset)
      else:
        yield from _READERS[layout.kind](_Stream(path, file, layout.offset))
  except FileNotFoundError as error:
    raise InputError(f"{path}: the pool file does not exist.") from error
  except OSError as error:
    raise InputError(
      f"{path}: cannot be read ({error.strerror}); expected a file with"
      f" {json_layouts.FORM}."
    ) from error


def find_kind(path: str | os.PathLike) -> str:
  """Returns how a file holds its records: the `kind` of its `JsonLayout`."""
  with compressed.open_plain(path) as file:
    return json_layouts.find_layout(os.fspath(path), file).kind


def record_bytes(path: str | os.PathLike, offset: int, length: int) -> bytes:
  """Returns the bytes of one record; those of an object's member include its key.

  Raises:
    InputError: the file cannot be read, or ends before the record does.
  """
  try:
    with compressed.open_plain(path) as file:
      file.seek(offset)
      data = file.read(length)
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
  if len(data) != length:
    raise InputError(
      f"{path} ends before byte {offset + length:,}: it changed since the pool was"
      " checked. Put the old file back or check the pool again."
    )
  return data


def record_at(path: str | os.PathLike, offset: int, length: int) -> Record:
  """Reads and parses one record.

  Raises:
    InputError: there is no record at this offset, or not any more.
  """
  key, data = split_key(record_bytes(path, offset, length))
  value, detail = parsing.parse_bytes(data)
  if value is None:
    raise InputError(
      f"{path}, byte {offset:,}: not a record ({detail}); the file changed since the"
      " pool was checked. Put the old file back or check the pool again."
    )
  return Record(offset, length, value, id=key)


def split_key(data: bytes) -> tuple[str | None, bytes]:
  """Splits an object's member into key and value; the key of a bare record is None."""
  if data.startswith(b'"'):
    text = data.decode("utf-8", "surrogateescape")
    try:
      key, end = parsing.DECODER.raw_decode(text)
      before, colon, after = text[end:].partition(":")
    except ValueError:
      return None, data
    if colon and not before.strip():
      # The key may become an id, which must not hold lone surrogates.
      key = key.encode("utf-8", "replace").decode()
      return key, after.strip(" \t\r\n").encode("utf-8", "surrogateescape")
  return None, data


class _Stream(Window):
  """A window over an open pool file, whose errors name the file and the line."""

  def __init__(self, path: str, file: io.BufferedIOBase, offset: int):
    super().__init__(file, offset)
    self.path = path
    self._file_for_lines = file

  def fault(self, found: str, expected: str) -> InputError:
    """Makes the error for a fault at the current position."""
    return json_layouts.structure_error(
      self.path, self._file_for_lines, self.offset, found, expected
    )

  def peek(self) -> Any:
    """Parses the first element of the list that is next; None if it cannot be."""
    value = json_layouts.peek(self.text, self.index)
    while value is None and len(self.text) - self.index < MOST_BYTES:
      if not self.read_more():
        break
      value = json_layouts.peek(self.text, self.index)
    return value

  def take_text(self) -> str | None:
    """Takes the next value as `take_value` does, with an error for users.

    Raises:
      InputError: the file ends before the value does.
    """
    try:
      return self.take_value()
    except EndsInside as error:
      hint = f" Its first fault: {error.fault}." if error.fault else ""
      line = json_layouts.line_of(self._file_for_lines, error.offset)
      raise InputError(
        f"{self.path}: the file ends at byte {self.offset:,} inside the record that"
        f" begins at byte {error.offset:,} (line {line:,}).{hint} Copy the file again"
        " if it was cut off, or correct this record."
      ) from None

  def take_record(self) -> Record:
    """Takes the next value as a record, which is malformed if it cannot be parsed."""
    offset = self.offset
    if self.next_character() == "{":
      offset = self.offset
      try:
        value, end = parsing.DECODER.raw_decode(self.text, self.index)
      except (ValueError, RecursionError):
        pass  # it is broken, or continues in the next chunk
      else:
        text = self.take(end)
        detail = parsing.find_fault(text, value)
        return _make_record(offset, self.offset - offset, value, detail)
    value_text = self.take_text()
    length = self.offset - offset
    if value_text is None:
      return _make_record(offset, length, None, _too_large(length))
    return _make_record(offset, length, *parsing.parse(value_text))


def _read_list(stream: _Stream) -> Iterator[Record]:
  """Yields the elements of one list, or of several that follow one another."""
  is_empty = True
  while stream.next_character():
    for record in _read_elements(stream):
      is_empty = False
      yield record
    if (mark := stream.next_character()) == ",":
      stream.take_character()
      mark = stream.next_character()
    if mark not in ("", "["):
      raise stream.fault(mark, "nothing after the list's ]")
  if is_empty:
    raise InputError(
      f"{stream.path}: the list is empty; a pool needs at least one record."
    )


def _read_elements(stream: _Stream) -> Iterator[Record]:
  """Yields the elements of a list; a comma may follow the last one.

  An element may be a list of records itself: Qwen's tool for fine-tuning puts records
  that it packs into one sequence in a list.
  """
  stream.take_character()
  mark = stream.next_character()
  while mark != "]":
    if mark in ("", ",", "}", ":"):
      raise stream.fault(mark, "a record")
    if mark == "[" and json_layouts.is_record(stream.peek()):
      yield from _read_elements(stream)
    else:
      yield stream.take_record()
    mark = stream.next_character()
    if mark not in (",", "]"):
      raise stream.fault(mark, "a comma before the next record, or ]")
    if mark == ",":
      stream.take_character()
      mark = stream.next_character()
  stream.take_character()


def _read_wrapped(stream: _Stream) -> Iterator[Record]:
  """Yields the elements of the list that is a member of the file's one object."""
  is_empty = True
  for record in _read_elements(stream):
    is_empty = False
    yield record
  if is_empty:
    raise InputError(
      f"{stream.path}: the list is empty; a pool needs at least one record."
    )
  while (mark := stream.take_character()) == ",":
    if stream.next_character() == "}":
      continue
    key = stream.take_text()
    if stream.take_character() != ":":
      raise stream.fault("", f"a colon after {key}")
    is_list, offset = stream.next_character() == "[", stream.offset
    first = json_layouts.peek(stream.text, stream.index) if is_list else None
    stream.take_text()
    if json_layouts.is_record(first):
      raise InputError(
        f"{stream.path}, byte {offset:,}: the object has a second list of records,"
        f" {(key or '')[:80]}. Write the list to read to a file of its own."
      )
  if mark != "}" or stream.next_character():
    raise stream.fault(mark, "the end of the object that holds the records")


def _read_keyed(stream: _Stream) -> Iterator[Record]:
  """Yields the members of the file's one object.

  The key is the id of a record that has no id of its own.
  """
  stream.take_character()
  mark = stream.next_character()
  while mark != "}":
    if mark != '"':
      raise stream.fault(mark, "a key in quotes")
    offset, text = stream.offset, stream.take_text()
    if stream.take_character() != ":":
      raise stream.fault(stream.next_character(), "a colon after the key")
    record = stream.take_record()
    key = split_key(f"{text}:".encode("utf-8", "surrogateescape"))[0]
    record = record._replace(offset=offset, length=stream.offset - offset, id=key)
    if key is None:
      record = record._replace(value=None, reason="malformed", detail="a broken key")
    yield record
    mark = stream.next_character()
    if mark not in (",", "}"):
      raise stream.fault(mark, "a comma before the next record, or }")
    if mark == ",":
      stream.take_character()
      mark = stream.next_character()
  stream.take_character()
  if mark := stream.next_character():
    raise stream.fault(mark, "nothing after the object's }")


def _read_objects(stream: _Stream) -> Iterator[Record]:
  """Yields consecutive objects, on any number of lines, with or without commas."""
  while mark := stream.next_character():
    if mark != "{":
      raise stream.fault(mark, "an object")
    yield stream.take_record()
    if stream.next_character() == ",":
      stream.take_character()


_READERS = {
  json_layouts.LIST: _read_list,
  json_layouts.WRAPPED: _read_wrapped,
  json_layouts.KEYED: _read_keyed,
  json_layouts.OBJECTS: _read_objects,
}


def _read_lines(path: str, file: io.BufferedIOBase, offset: int) -> Iterator[Record]:
  """Yields one record for each line; a comma may follow it."""
  while line := file.readline(MOST_BYTES + 1):
    size = len(line)
    is_too_large = size > MOST_BYTES and not line.endswith(b"\n")
    if is_too_large:
      while rest := file.readline(CHUNK):
        size += len(rest)
        if rest.endswith(b"\n"):
          break
      yield _make_record(offset, size, None, _too_large(size))
    elif body := line.strip(json_layouts.SPACE):
      start = offset + len(line) - len(line.lstrip(json_layouts.SPACE))
      if body.endswith(b"},"):
        body = body[:-1]
      yield _make_record(start, len(body), *parsing.parse_bytes(body))
    offset += size


def _make_record(
  offset: int, length: int, value: dict[str, Any] | None, detail: str
) -> Record:
  if detail:
    return Record(offset, length, None, "malformed", detail)
  return Record(offset, length, value)


def _too_large(size: int) -> str:
  return f"{size:,} bytes, the limit of a record is {MOST_BYTES:,}"
