"""Lists as people write them in a config or on a command line."""

import ast
import numbers
from typing import Any

_ENDS = {"[": "]", "(": ")"}


def split_names(value: Any) -> list[str]:
  """The names or numbers that a setting lists.

  Args:
    value: one, several with commas between them (`a,b`), a list of them, or the text of
      a list (`['a', 'b']`, `(a, b)`). Names hold no commas. None is an empty list.
  """
  if isinstance(value, numbers.Real):
    return [str(value)]
  if not value:
    return []
  if isinstance(value, str):
    inside = read_brackets(value)
    return _split(value) if inside is None else inside
  return [name for item in value for name in split_names(item)]


def read_brackets(text: str) -> list[str] | None:
  """The items of a list that is written in brackets; None where it is none.

  A shell takes quotes away, so that they may be missing.
  """
  text = text.strip()
  if not _is_wrapped(text):
    return None
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    value = None
  if isinstance(value, tuple | list):
    return [str(item) for item in value]
  return _split(text[1:-1])


def _is_wrapped(text: str) -> bool:
  """Whether the bracket that a text begins with is closed by its last character."""
  if len(text) < 2 or text[0] not in _ENDS or text[-1] != _ENDS[text[0]]:
    return False
  depth = 0
  for place, character in enumerate(text):
    depth += (character == text[0]) - (character == text[-1])
    if depth == 0:
      return place == len(text) - 1
  return False


def _split(text: str) -> list[str]:
  pieces = (piece.strip().strip("'\"").strip() for piece in text.split(","))
  return [piece for piece in pieces if piece]
