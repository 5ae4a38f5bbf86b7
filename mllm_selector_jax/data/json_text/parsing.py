"""Parses the text of one record, which must be a JSON object within sane limits."""

import json
import math
import re
from typing import Any

MOST_LEVELS = 100  # of nesting
TURNS = "conversations"  # the field that a bare list of turns is put into
_TURN = ({"from", "value"}, {"role", "content"}, {"from", "content"}, {"role", "value"})
_PYTHON = re.compile(r"\s*\{\s*'|\s*\[\s*\{\s*'")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _parse_float(text: str) -> float | None:
  value = float(text)
  return value if math.isfinite(value) else None


# NaN and infinity are read as null. They are not JSON, but Python and pandas write them
# for missing values. Texts are never numbers, so that no text of a row is lost.
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
  """Parses a record from UTF-8; see `parse`."""
  return parse(data.decode("utf-8", "surrogateescape"))


def parse(text: str) -> tuple[dict[str, Any] | None, str]:
  """Parses a record.

  A bare list of turns, as Energon's converters write it, becomes an object whose field
  `TURNS` holds the list.

  Returns:
    The object and "", or None and what is wrong with the text.
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
    offset = len(text[: error.pos].encode())
    return None, f"invalid JSON at the record's byte {offset:,}: {error.msg}"
  except ValueError as error:
    if "integer string" in str(error):
      return None, "a number has thousands of digits"
    return None, str(error)
  if isinstance(value, list) and value and is_turn(value[0]):
    value = {TURNS: value}
  fault = find_fault(text, value)
  return (None, fault) if fault else (value, "")


def is_turn(value: Any) -> bool:
  """Returns whether a value is a turn of a conversation, by its fields."""
  return isinstance(value, dict) and any(pair <= value.keys() for pair in _TURN)


def make_strict(data: bytes) -> bytes:
  """Returns a record's JSON as a strict JSON object.

  A bare list of turns becomes an object, and numbers that are not JSON become null;
  everything else keeps its bytes. Text that is not a valid record is returned as it is.
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
  """Returns what is wrong with a parsed record; "" if nothing is.

  Args:
    text: the record's text.
    value: what the text was parsed to.
  """
  if not text.isascii() and (fault := _find_invalid(text)):
    return fault
  if not isinstance(value, dict):
    return f"a record is an object, not {_KINDS.get(type(value), 'null')}"
  # The number of brackets is an upper bound of the depth, and is counted quickly.
  may_be_deep = text.count("{") + text.count("[") > MOST_LEVELS
  if may_be_deep and _is_deep(value):
    return f"nested more than {MOST_LEVELS} levels deep"
  if _SURROGATE.search(text):
    try:
      json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
      return "a lone surrogate, which is not a character (\\ud800 to \\udfff)"
  return ""


def _find_invalid(text: str) -> str:
  try:
    text.encode()
  except UnicodeEncodeError as error:
    offset = len(text[: error.start].encode())
    return f"invalid UTF-8 at the record's byte {offset:,}"
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
