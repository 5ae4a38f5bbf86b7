"""What a record's text must be: an object in strict, sane JSON."""

import json
import math
import re
from typing import Any

MOST_LEVELS = 100  # of nesting
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _refuse_constant(name: str) -> None:
  raise ValueError(f"{name} is not a JSON number")


def _parse_float(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise ValueError(f"the number {text[:40]} is beyond what a float holds")
  return value


DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_parse_float)
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
  """The object that a text holds, and "" or what is wrong with it."""
  if fault := _find_invalid(text):
    return None, fault
  try:
    value = DECODER.decode(text)
  except RecursionError:
    return None, f"nested more than {MOST_LEVELS} levels deep"
  except json.JSONDecodeError as error:
    place = len(text[: error.pos].encode())
    return None, f"invalid JSON at the record's byte {place:,}: {error.msg}"
  except ValueError as error:
    if "integer string" in str(error):
      return None, "a number has thousands of digits"
    return None, str(error)
  fault = find_fault(text, value)
  return (None, fault) if fault else (value, "")


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
