"""Parses lists, in every form in which people write them in configs and commands."""

import ast
import numbers
from typing import Any

_ENDS = {"[": "]", "(": ")"}


def split_names(value: Any) -> list[str]:
  """Splits the value of a setting into names.

  Args:
    value: a name or number, several separated by commas (`a,b`), a list of these, or
      the text of a list (`['a', 'b']`, `(a, b)`). Names must not contain commas. None
      is an empty list.

  Returns:
    The names; numbers are returned as text.
  """
  if isinstance(value, numbers.Real):
    return [str(value)]
  if not value:
    return []
  if isinstance(value, str):
    items = read_brackets(value)
    return _split(value) if items is None else items
  return [name for item in value for name in split_names(item)]


def read_brackets(text: str) -> list[str] | None:
  """Parses a list that is written in brackets, with or without quotes.

  Quotes may be missing, since a shell removes them.

  Returns:
    The items; None if the text is not a list in brackets.
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
  """Returns whether a text begins with a bracket that its last character closes."""
  if len(text) < 2 or text[0] not in _ENDS or text[-1] != _ENDS[text[0]]:
    return False
  depth = 0
  for index, character in enumerate(text):
    depth += (character == text[0]) - (character == text[-1])
    if depth == 0:
      return index == len(text) - 1
  return False


def _split(text: str) -> list[str]:
  pieces = (piece.strip().strip("'\"").strip() for piece in text.split(","))
  return [piece for piece in pieces if piece]
