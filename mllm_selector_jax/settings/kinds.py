"""Defines kinds of settings: functions that raise if a value is not of their kind."""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from mllm_selector_jax import listing
from mllm_selector_jax.types import InputError

Check = Callable[[str, Any], None]  # takes key and value; raises an InputError


def refuse(key: str, value: Any, allowed: str) -> None:
  """Raise an InputError that says what the value of a key must be."""
  formatted = f"{value:,}" if _is_integer(value) else repr(value)
  raise InputError(f"{key}={formatted}; it must be {allowed}.")


def _is_integer(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def integer(least: int = 0, most: int | None = None) -> Check:
  """Accept whole numbers from `least` to `most`."""
  upper = "or more" if most is None else f"to {most:,}"

  def check(key: str, value: Any) -> None:
    if not _is_integer(value) or value < least or (most is not None and value > most):
      refuse(key, value, f"a whole number, {least:,} {upper}")

  return check


def number(least: float, most: float = math.inf, ends: str = "[]") -> Check:
  """Accept numbers of an interval; in `ends`, "[" includes and "(" excludes an end."""
  lower = f"{least:g} or more" if ends[0] == "[" else f"above {least:g}"
  upper = f"{'at most' if ends[1] == ']' else 'below'} {most:g}"
  allowed = f"a number, {lower}" + ("" if most == math.inf else f" and {upper}")

  def check(key: str, value: Any) -> None:
    if not _is_number(value) or not least <= value <= most:
      refuse(key, value, allowed)
    if (value == least and ends[0] == "(") or (value == most and ends[1] == ")"):
      refuse(key, value, allowed)

  return check


SHARE = number(0, 1)
POSITIVE = number(0, ends="()")


def one_of(*names: str) -> Check:
  """Accept one of these strings."""

  def check(key: str, value: Any) -> None:
    if not isinstance(value, str) or value not in names:
      raise InputError(f"{key}={value!r}: allowed are {', '.join(names)}.")

  return check


def flag(key: str, value: Any) -> None:
  """Accept True or False."""
  if not isinstance(value, bool):
    refuse(key, value, "True or False")


def text(key: str, value: Any) -> None:
  """Accept any string."""
  if not isinstance(value, str):
    refuse(key, value, "a text")


def name(key: str, value: Any) -> None:
  """Accept a string that is not empty."""
  if not isinstance(value, str) or not value.strip():
    refuse(key, value, "a text that is not empty")


def folder_name(key: str, value: Any) -> None:
  """Accept the name of a folder, without slashes."""
  name(key, value)
  if "/" in value or value in (".", ".."):
    refuse(key, value, "the name of a folder, without a slash")


def texts(key: str, value: Any) -> None:
  """Accept a string (several parts separated by commas), a list of strings, or None."""
  listed = value if isinstance(value, tuple | list) else [value or ""]
  if isinstance(value, bool) or not all(isinstance(item, str) for item in listed):
    refuse(key, value, "a text, several separated by commas, or a list of texts")


def ids(key: str, value: Any) -> None:
  """Accept ids, the name of a file of ids, or None."""
  listed = value if isinstance(value, tuple | list) else [value]
  if value is not None and not all(
    _is_integer(i) or isinstance(i, str) for i in listed
  ):
    refuse(key, value, "an id, several separated by commas, a list of ids, or a file")


def mapping(key: str, value: Any) -> None:
  """Accept a dict, a string that holds one, or None."""
  if not isinstance(value, str | Mapping | None):
    refuse(key, value, "a dict, or the text of one")


def sequence(key: str, value: Any) -> None:
  """Accept a list or a tuple."""
  if not isinstance(value, tuple | list):
    refuse(key, value, "a list")


def optional(check: Check) -> Check:
  """Accept None and what `check` accepts."""
  return lambda key, value: None if value is None else check(key, value)


def all_of(*checks: Check) -> Check:
  """Accept what all of the checks accept."""

  def check(key: str, value: Any) -> None:
    for part in checks:
      part(key, value)

  return check


def list_of(check: Callable[[str, Any], object], least: int = 0) -> Check:
  """Accept one or several values that `check` accepts.

  They may be a number, a string with commas, or a list of at least `least` values.
  """

  def checked(key: str, value: Any) -> None:
    if value is not None and not isinstance(value, str | numbers.Real | tuple | list):
      refuse(key, value, "a value, several separated by commas, or a list")
    items = listing.split_names(value)
    if isinstance(value, bool) or len(items) < least:
      refuse(key, value, f"a list of at least {least}")
    for item in items:
      check(key, item)

  return checked


def parsed(function: Callable[[Any], Any]) -> Check:
  """Accept what a function accepts that raises an InputError otherwise."""

  def check(key: str, value: Any) -> None:
    try:
      function(value)
    except InputError as error:
      message = str(error)
      raise InputError(message if key in message else f"{key}: {message}") from error

  return check
