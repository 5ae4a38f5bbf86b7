"""Reads the records of a pool file, LLaVA's JSON list or JSONL, as a stream.

A fault inside one record makes that record malformed and the reading goes on; a
fault between records, after which nothing can be trusted, ends it with an
`InputError` that names file, byte and line.
"""

import codecs
import os
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from mllm_selector_jax.data import parsing, storage
from mllm_selector_jax.data.brackets import Brackets
from mllm_selector_jax.types import InputError, Record

MOST_BYTES = 16 << 20  # of a record
_CHUNK = 1 << 20  # bytes
_SPACE = re.compile(r"[ \t\r\n]*")
_SPACE_BYTES = b" \t\r\n"
_PACKED = {
  b"\x1f\x8b": "gzip",
  b"PK\x03\x04": "zip",
  b"BZh": "bzip2",
  b"\xfd7zXZ": "xz",
  b"\x28\xb5\x2f\xfd": "zstd",
}
_FORM = "a JSON list of records ([{...}, ...]) or JSONL (one {...} a line)"


def read_records(path: str | os.PathLike) -> Iterator[Record]:
  """Every record of a file, in order, in memory that does not grow with it.

  Raises:
    InputError: the file is missing, empty, packed, cut off, or neither a JSON
      list nor JSONL.
  """
  path = os.fspath(path)
  try:
    with storage.open_binary(path) as file:
      offset, first = _find_start(path, file)
      file.seek(offset)
      if first == b"[":
        yield from _read_list(path, file, offset)
      else:
        yield from _read_lines(path, file, offset)
  except FileNotFoundError as error:
    raise InputError(f"{path}: the pool file is not there.") from error
  except OSError as error:
    raise InputError(
      f"{path}: cannot be read ({error.strerror}); expected a file with {_FORM}."
    ) from error


def is_lines(path: str | os.PathLike) -> bool:
  """Whether a file is JSONL, not a list."""
  with storage.open_binary(path) as file:
    return _find_start(os.fspath(path), file)[1] == b"{"


def record_bytes(path: str | os.PathLike, offset: int, length: int) -> bytes:
  """One record as it stands in the file."""
  try:
    with storage.open_binary(path) as file:
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


def record_at(path: str | os.PathLike, offset: int, length: int) -> dict[str, Any]:
  """One record, parsed.

  Raises:
    InputError: no record stands there (any more).
  """
  value, detail = parsing.parse_bytes(record_bytes(path, offset, length))
  if value is None:
    raise InputError(
      f"{path}, byte {offset:,}: no record ({detail}); the file changed since the"
      " pool was checked. Put the old file back or check the pool again."
    )
  return value


def _find_start(path: str, file: BinaryIO) -> tuple[int, bytes]:
  """Where the first character stands that is not blank, and that character."""
  head = file.read(16)
  if not head:
    raise InputError(f"{path}: the pool file is empty; expected {_FORM}.")
  for magic, name in _PACKED.items():
    if head.startswith(magic):
      raise InputError(f"{path}: packed with {name}; unpack it and give the result.")
  if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
    raise InputError(f"{path}: written in UTF-16; convert it to UTF-8.")
  offset = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
  file.seek(offset)
  while chunk := file.read(_CHUNK):
    rest = chunk.lstrip(_SPACE_BYTES)
    if rest:
      offset += len(chunk) - len(rest)
      if rest[:1] not in (b"[", b"{"):
        raise _structure(path, offset, f"{rest[:12]!r}", _FORM)
      return offset, rest[:1]
    offset += len(chunk)
  raise InputError(f"{path}: the pool file is blank; expected {_FORM}.")


class _Window:
  """Text that slides over the file; invalid bytes become lone surrogates.

  Attributes:
    text: what is held.
    place: index into `text` of the next character.
    offset: of that character in the file, in bytes.
  """

  def __init__(self, file: BinaryIO, offset: int):
    self.text = ""
    self.place = 0
    self.offset = offset
    self._file = file
    self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    self._ended = False

  def read_more(self) -> bool:
    """Drops what was taken and appends the next chunk; False at the end."""
    while not self._ended:
      chunk = self._file.read(_CHUNK)
      self._ended = not chunk
      new = self._decoder.decode(chunk, final=self._ended)
      if new:
        self.text = self.text[self.place :] + new
        self.place = 0
        return True
    return False

  def take(self, end: int) -> str:
    piece = self.text[self.place : end]
    self.place = end
    self.offset += (
      len(piece) if piece.isascii() else len(piece.encode("utf-8", "surrogateescape"))
    )
    return piece

  def next_character(self) -> str:
    """The next character that is not blank, not taken; "" at the end."""
    while True:
      end = _SPACE.match(self.text, self.place).end()
      self.offset += end - self.place
      self.place = end
      if end < len(self.text):
        return self.text[end]
      if not self.read_more():
        return ""


def _read_list(path: str, file: BinaryIO, offset: int) -> Iterator[Record]:
  window = _Window(file, offset)
  window.next_character()
  window.take(window.place + 1)
  if window.next_character() == "]":
    raise InputError(f"{path}: the list is empty; a pool needs at least one record.")
  while True:
    if (mark := window.next_character()) in ("", ",", "]", "}", ":"):
      raise _structure(path, window.offset, mark, "a record")
    yield _read_element(path, window, mark)
    mark = window.next_character()
    if mark not in (",", "]"):
      raise _structure(
        path, window.offset, mark, "a comma before the next record, or ]"
      )
    window.take(window.place + 1)
    if mark == "]":
      break
  if mark := window.next_character():
    raise _structure(path, window.offset, mark, "nothing after the list's ]")


def _read_element(path: str, window: _Window, first: str) -> Record:
  offset = window.offset
  if first == "{":
    try:
      value, end = parsing.DECODER.raw_decode(window.text, window.place)
    except (ValueError, RecursionError):
      pass  # broken, or it goes on in the next chunk
    else:
      text = window.take(end)
      detail = parsing.find_fault(text, value)
      return _make_record(offset, window.offset - offset, value, detail)
  text = _scan_element(path, window, first)
  length = window.offset - offset
  if text is None:
    return _make_record(offset, length, None, _too_large(length))
  return _make_record(offset, length, *parsing.parse(text))


def _scan_element(path: str, window: _Window, first: str) -> str | None:
  """The next element's text, taken; None if it is too large to be held."""
  offset, brackets = window.offset, Brackets(first)
  pieces: list[str] | None = []
  while True:
    end = brackets.find_end(window.text, window.place)
    piece = window.take(len(window.text) if end is None else end)
    if pieces is not None:
      pieces.append(piece)
      if window.offset - offset > MOST_BYTES:
        pieces = None
    if end is not None:
      return None if pieces is None else "".join(pieces)
    if not window.read_more():
      hint = ""
      if pieces is not None and (fault := parsing.parse("".join(pieces))[1]):
        hint = f" Its first fault: {fault}."
      raise InputError(
        f"{path}: the file ends at byte {window.offset:,} inside the record that"
        f" begins at byte {offset:,} (line {_line_of(path, offset):,}).{hint} Copy the"
        " file again if it was cut off, or correct this record."
      )


def _read_lines(path: str, file: BinaryIO, offset: int) -> Iterator[Record]:
  first = True
  while line := file.readline(MOST_BYTES + 1):
    size, cut = len(line), len(line) > MOST_BYTES and not line.endswith(b"\n")
    if cut:
      while rest := file.readline(_CHUNK):
        size += len(rest)
        if rest.endswith(b"\n"):
          break
      yield _make_record(offset, size, None, _too_large(size))
    elif body := line.strip(_SPACE_BYTES):
      start = offset + len(line) - len(line.lstrip(_SPACE_BYTES))
      value, detail = parsing.parse_bytes(body)
      if first and value is None and _is_open(body):
        raise _structure(
          path, start, "an object that goes on after its line", f"{_FORM}"
        )
      yield _make_record(start, len(body), value, detail)
    first = first and not line.strip(_SPACE_BYTES)
    offset += size


def _is_open(line: bytes) -> bool:
  """Whether a line's first bracket is still open at its end."""
  text = line.decode("utf-8", "surrogateescape")
  return Brackets(text[0]).find_end(text, 0) is None


def _make_record(
  offset: int, length: int, value: dict[str, Any] | None, detail: str
) -> Record:
  if detail:
    return Record(offset, length, None, "malformed", detail)
  return Record(offset, length, value)


def _too_large(size: int) -> str:
  return f"{size:,} bytes, the limit of a record is {MOST_BYTES:,}"


def _structure(path: str, offset: int, found: str, expected: str) -> InputError:
  return InputError(
    f"{path}, byte {offset:,} (line {_line_of(path, offset):,}): expected {expected},"
    f" found {found or 'the end of the file'}."
  )


def _line_of(path: str, offset: int) -> int:
  """The line, from 1, in which a byte stands."""
  line = 1
  with storage.open_binary(path) as file:
    while offset > 0 and (chunk := file.read(min(offset, _CHUNK))):
      line += chunk.count(b"\n")
      offset -= len(chunk)
  return line
