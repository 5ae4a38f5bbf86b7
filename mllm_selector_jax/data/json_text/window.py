"""Provides a sliding window of text over a JSON file, so that memory is bounded."""

import codecs
import io
import re

from mllm_selector_jax.data.json_text import parsing
from mllm_selector_jax.data.json_text.brackets import Brackets

MOST_BYTES = 16 << 20  # size of the largest allowed record
CHUNK = 1 << 20  # bytes
_SPACE = re.compile(r"[ \t\r\n]*")


class EndsInside(ValueError):
  """The file ends inside a value.

  Attributes:
    offset: the byte at which the value begins.
    fault: what is wrong with the part of the value that is there; "" if nothing is.
  """

  def __init__(self, offset: int, fault: str):
    super().__init__(fault)
    self.offset = offset
    self.fault = fault


class Window:
  """Reads values from a file one after another, and holds only a window of its text.

  Invalid bytes become lone surrogates.

  Args:
    file: the file, which is read from its current position.
    offset: the current position, in bytes.

  Attributes:
    text: the text that is held.
    index: the index in `text` of the next character.
    offset: the position of that character in the file, in bytes.
  """

  def __init__(self, file: io.BufferedIOBase, offset: int):
    self.text = ""
    self.index = 0
    self.offset = offset
    self._file = file
    self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    self._ended = False

  def read_more(self) -> bool:
    """Drops the text that was taken, and appends the next chunk of the file.

    Returns:
      False at the end of the file.
    """
    while not self._ended:
      chunk = self._file.read(CHUNK)
      self._ended = not chunk
      new = self._decoder.decode(chunk, final=self._ended)
      if new:
        self.text = self.text[self.index :] + new
        self.index = 0
        return True
    return False

  def take(self, end: int) -> str:
    """Takes the text up to the index `end`."""
    piece = self.text[self.index : end]
    self.index = end
    self.offset += count_bytes(piece)
    return piece

  def next_character(self) -> str:
    """Skips blanks and returns the next character without taking it; "" at the end."""
    while True:
      blanks = _SPACE.match(self.text, self.index)
      assert blanks is not None  # the pattern matches the empty string
      end = blanks.end()
      self.offset += end - self.index
      self.index = end
      if end < len(self.text):
        return self.text[end]
      if not self.read_more():
        return ""

  def take_character(self) -> str:
    """Skips blanks and takes the next character; returns "" at the end."""
    return self.take(self.index + 1) if self.next_character() else ""

  def take_value(self) -> str | None:
    """Takes the next value.

    Returns:
      The value's text; None if it is larger than `MOST_BYTES`.

    Raises:
      EndsInside: the file ends before the value does.
    """
    first = self.next_character()
    offset, brackets = self.offset, Brackets(first)
    pieces: list[str] | None = []
    while True:
      end = brackets.find_end(self.text, self.index)
      piece = self.take(len(self.text) if end is None else end)
      if pieces is not None:
        pieces.append(piece)
        if self.offset - offset > MOST_BYTES:
          pieces = None
      if end is not None:
        return None if pieces is None else "".join(pieces)
      if not self.read_more():
        fault = parsing.parse("".join(pieces))[1] if pieces is not None else ""
        raise EndsInside(offset, fault)


def count_bytes(text: str) -> int:
  """Returns the number of bytes that a window's text takes in the file."""
  return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))
