"""What a record's text must be: an object in sane JSON."""

import json
import math
import re
from typing import Any

MOST_LEVELS = 100  # of nesting
TURNS = "conversations"  # the field of the turns that a record is bare of
_TURN = ({"from", "value"}, {"role", "content"}, {"from", "content"}, {"role", "value"})
_PYTHON = re.compile(r"\s*\{\s*'|\s*\[\s*\{\s*'")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _parse_float(text: str) -> float | None:
  value = float(text)
  return value if math.isfinite(value) else None


# NaN and infinity, which JSON has no word for, are null: what Python and pandas write
# where a value is missing. No text is a number, so none of a row's text is lost.
DECODER = json.JSONDecoder(parse_constant=lambda name: None, parse_float=_parse_float)
_NO_NUMBER = re.compile(rb"NaN|Infinity|[eE]\+?\d{3}|\d{309}")
_KINDS = {
  list: "a list",
  str: "text",
  int: "a number",
  float: "a number",
  bool: "a literal",
}


def parse_bytes(data: bytes) -> tuple[dict[str, Any] | None, str]:
  return parse(data.decode("utf-8", "surrogateescape"))


def parse(text: str) -> tuple[dict[str, Any] | None, str]:
  """The object that a text holds, and "" or what is wrong with it.

  A bare list of turns, as Energon's converters write it, is an object that has it.
  """
  if fault := _find_invalid(text):
    return None, fault
  try:
    value = DECODER.decode(text)
  except RecursionError:
    return None, f"nested more than {MOST_LEVELS} levels deep"
  except json.JSONDecodeError as error:
    if _PYTHON.match(text):
      return None, "Python's text of a dict, with single quotes; write it as JSON"
    place = len(text[: error.pos].encode())
    return None, f"invalid JSON at the record's byte {place:,}: {error.msg}"
  except ValueError as error:
    if "integer string" in str(error):
      return None, "a number has thousands of digits"
    return None, str(error)
  if isinstance(value, list) and value and is_turn(value[0]):
    value = {TURNS: value}
  fault = find_fault(text, value)
  return (None, fault) if fault else (value, "")


def is_turn(value: Any) -> bool:
  """Whether an object is what somebody said, by its fields."""
  return isinstance(value, dict) and any(pair <= value.keys() for pair in _TURN)


def make_strict(data: bytes) -> bytes:
  """A record's JSON as it is, but an object, and without what is no number of JSON.

  Text that is no record, or may be a part of one, stays as it is.
  """
  if data.startswith(b"["):
    data = b'{"%b": %b}' % (TURNS.encode(), data)
  if not _NO_NUMBER.search(data):
    return data
  value, _ = parse_bytes(data)
  if value is None or json.JSONDecoder().decode(data.decode()) == value:
    return data
  return json.dumps(value, ensure_ascii=False).encode()


def find_fault(text: str, value: Any) -> str:
  """What is wrong with a parsed record; "" if nothing is."""
  if not text.isascii() and (fault := _find_invalid(text)):
    return fault
  if not isinstance(value, dict):
    return f"a record is an object, not {_KINDS.get(type(value), 'null')}"
  # Brackets bound the depth from above, and counting them costs next to nothing.
  deep = text.count("{") + text.count("[") > MOST_LEVELS
  if deep and _is_deep(value):
    return f"nested more than {MOST_LEVELS} levels deep"
  if _SURROGATE.search(text):
    try:
      json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
      return "a lone surrogate, which is no character (\\ud800 to \\udfff)"
  return ""


def _find_invalid(text: str) -> str:
  try:
    text.encode()
  except UnicodeEncodeError as error:
    place = len(text[: error.start].encode())
    return f"invalid UTF-8 at the record's byte {place:,}"
  return ""


def _is_deep(value: Any) -> bool:
  level = [value]
  for _ in range(MOST_LEVELS):
    level = [
      child
      for parent in level
      for child in (parent.values() if isinstance(parent, dict) else parent)
      if isinstance(child, dict | list)
    ]
    if not level:
      return False
  return True
