"""Finds where a JSON value ends without parsing it, so also if it is invalid."""

import re

_OUTSIDE = re.compile(r'"|[\[{]+|[\]}]+')
_INSIDE = re.compile(r'"|\\')
_SCALAR = re.compile(r"[\s,\]}]")


class Brackets:
  """Finds the end of one JSON value that is given in pieces, in constant memory.

  Only brackets are counted and strings skipped, so that numbers, literals and depths
  that the JSON parser refuses do no harm.

  Args:
    first: the value's first character.
  """

  def __init__(self, first: str):
    self._is_nested = first in "{["
    self._is_text = first == '"'
    self._depth = 0
    self._in_string = False
    self._escaped = False

  def find_end(self, text: str, start: int) -> int | None:
    """Returns the index after the value's last character.

    Args:
      text: a piece of text that holds the value's next characters.
      start: the index in `text` at which they begin.

    Returns:
      None if the value continues after this piece; call again with the next one.
    """
    if not self._is_nested and not self._is_text:
      end = _SCALAR.search(text, start)
      return None if end is None else end.start()
    position = start
    while position < len(text):
      if self._escaped:
        self._escaped = False
        position += 1
        continue
      match = (_INSIDE if self._in_string else _OUTSIDE).search(text, position)
      if match is None:
        return None
      position = match.end()
      mark = match[0]
      if mark == "\\":
        self._escaped = True
      elif mark == '"':
        self._in_string = not self._in_string
        if self._is_text and not self._in_string:
          return position
      elif mark[0] in "{[":
        self._depth += len(mark)
      else:
        if len(mark) >= self._depth:
          return match.start() + self._depth
        self._depth -= len(mark)
    return None
