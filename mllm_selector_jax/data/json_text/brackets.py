"""Finds where a JSON value ends without parsing it: for records json refuses."""

import re

_OUTSIDE = re.compile(r'"|[\[{]+|[\]}]+')
_INSIDE = re.compile(r'"|\\')
_SCALAR = re.compile(r"[\s,\]}]")


class Brackets:
  """Follows one JSON value through pieces of text, in constant memory.

  It counts brackets and skips strings, so it passes over numbers, literals and
  nestings that the parser refuses.

  Args:
    first: the value's first character.
  """

  def __init__(self, first: str):
    self._nested = first in "{["
    self._text = first == '"'
    self._depth = 0
    self._in_string = False
    self._escaped = False

  def find_end(self, text: str, start: int) -> int | None:
    """The index after the value's last character.

    Args:
      text: a piece that holds the value's next characters.
      start: where they begin.

    Returns:
      None if the value goes on after this piece; call again with the next.
    """
    if not self._nested and not self._text:
      end = _SCALAR.search(text, start)
      return None if end is None else end.start()
    position = start
    while position < len(text):
      if self._escaped:
        self._escaped = False
        position += 1
        continue
      found = (_INSIDE if self._in_string else _OUTSIDE).search(text, position)
      if found is None:
        return None
      position = found.end()
      mark = found[0]
      if mark == "\\":
        self._escaped = True
      elif mark == '"':
        self._in_string = not self._in_string
        if self._text and not self._in_string:
          return position
      elif mark[0] in "{[":
        self._depth += len(mark)
      else:
        if len(mark) >= self._depth:
          return found.start() + self._depth
        self._depth -= len(mark)
    return None
