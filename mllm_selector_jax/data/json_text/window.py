"""Text that slides over a file of JSON, so that memory does not grow with it."""

import codecs
import io
import re

from mllm_selector_jax.data.json_text import parsing
from mllm_selector_jax.data.json_text.brackets import Brackets

MOST_BYTES = 16 << 20  # of a record
CHUNK = 1 << 20  # bytes
_SPACE = re.compile(r"[ \t\r\n]*")


class EndsInside(ValueError):
  """The file ends inside a value.

  Attributes:
    offset: where the value begins.
    fault: what is wrong with what there is of it, "" if nothing is.
  """

  def __init__(self, offset: int, fault: str):
    super().__init__(fault)
    self.offset = offset
    self.fault = fault


class Window:
  """The text from a place of a file on; invalid bytes become lone surrogates.

  Args:
    file: read from where it stands.
    offset: of that place in the file, in bytes.

  Attributes:
    text: what is held.
    place: index into `text` of the next character.
    offset: of that character in the file, in bytes.
  """

  def __init__(self, file: io.BufferedIOBase, offset: int):
    self.text = ""
    self.place = 0
    self.offset = offset
    self._file = file
    self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    self._ended = False

  def read_more(self) -> bool:
    """Drops what was taken and appends the next chunk; False at the end."""
    while not self._ended:
      chunk = self._file.read(CHUNK)
      self._ended = not chunk
      new = self._decoder.decode(chunk, final=self._ended)
      if new:
        self.text = self.text[self.place :] + new
        self.place = 0
        return True
    return False

  def take(self, end: int) -> str:
    """The text up to an index, which is left behind."""
    piece = self.text[self.place : end]
    self.place = end
    self.offset += count_bytes(piece)
    return piece

  def next_character(self) -> str:
    """The next character that is not blank, not taken; "" at the end."""
    while True:
      blanks = _SPACE.match(self.text, self.place)
      assert blanks is not None  # it also matches no blank at all
      end = blanks.end()
      self.offset += end - self.place
      self.place = end
      if end < len(self.text):
        return self.text[end]
      if not self.read_more():
        return ""

  def take_character(self) -> str:
    """The next character that is not blank, taken; "" at the end."""
    return self.take(self.place + 1) if self.next_character() else ""

  def take_value(self) -> str | None:
    """The next value's text, taken; None if it is too large to be held.

    Raises:
      EndsInside: the file ends before the value does.
    """
    first = self.next_character()
    offset, brackets = self.offset, Brackets(first)
    pieces: list[str] | None = []
    while True:
      end = brackets.find_end(self.text, self.place)
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
  """Bytes that a window's text has in the file."""
  return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))
