"""Kinds of settings: small functions that refuse a value which is none of its kind."""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from mllm_selector_jax.data import listing
from mllm_selector_jax.types import InputError

Check = Callable[[str, Any], None]  # key and value; an InputError names the key


def refuse(key: str, value: Any, wanted: str) -> None:
  """Raises the message for a value that is not what is wanted."""
  shown = f"{value:,}" if _is_whole(value) else repr(value)
  raise InputError(f"{key}={shown}; it must be {wanted}.")


def _is_whole(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def whole(least: int = 0, most: int | None = None) -> Check:
  """A whole number."""
  upper = "or more" if most is None else f"to {most:,}"

  def check(key: str, value: Any) -> None:
    if not _is_whole(value) or value < least or (most is not None and value > most):
      refuse(key, value, f"a whole number, {least:,} {upper}")

  return check


def number(least: float, most: float = math.inf, ends: str = "[]") -> Check:
  """A number of an interval, whose `ends` are as in "[)": a round one is left out."""
  lower = f"{least:g} or more" if ends[0] == "[" else f"above {least:g}"
  upper = f"{'at most' if ends[1] == ']' else 'below'} {most:g}"
  wanted = f"a number, {lower}" + ("" if most == math.inf else f" and {upper}")

  def check(key: str, value: Any) -> None:
    if not _is_number(value) or not least <= value <= most:
      refuse(key, value, wanted)
    if (value == least and ends[0] == "(") or (value == most and ends[1] == ")"):
      refuse(key, value, wanted)

  return check


SHARE = number(0, 1)
POSITIVE = number(0, ends="()")


def one_of(*names: str) -> Check:
  """One of these texts."""

  def check(key: str, value: Any) -> None:
    if not isinstance(value, str) or value not in names:
      raise InputError(f"{key}={value!r}: allowed are {', '.join(names)}.")

  return check


def flag(key: str, value: Any) -> None:
  """True or False."""
  if not isinstance(value, bool):
    refuse(key, value, "True or False")


def text(key: str, value: Any) -> None:
  """Any text."""
  if not isinstance(value, str):
    refuse(key, value, "a text")


def name(key: str, value: Any) -> None:
  """A text that is not empty."""
  if not isinstance(value, str) or not value.strip():
    refuse(key, value, "a text that is not empty")


def folder_name(key: str, value: Any) -> None:
  """The name of a folder, without a path to it."""
  name(key, value)
  if "/" in value or value in (".", ".."):
    refuse(key, value, "the name of a folder, without a slash")


def texts(key: str, value: Any) -> None:
  """A text, of one or of several with commas, or a list of texts; None for none."""
  listed = value if isinstance(value, tuple | list) else [value or ""]
  if isinstance(value, bool) or not all(isinstance(item, str) for item in listed):
    refuse(key, value, "a text, several separated by commas, or a list of texts")


def ids(key: str, value: Any) -> None:
  """Ids, or the name of a file of them; None for none."""
  listed = value if isinstance(value, tuple | list) else [value]
  if value is not None and not all(_is_whole(i) or isinstance(i, str) for i in listed):
    refuse(key, value, "an id, several separated by commas, a list of ids, or a file")


def mapping(key: str, value: Any) -> None:
  """A dict, or the text of one; None for none."""
  if not isinstance(value, str | Mapping | None):
    refuse(key, value, "a dict, or the text of one")


def sequence(key: str, value: Any) -> None:
  """A list or tuple."""
  if not isinstance(value, tuple | list):
    refuse(key, value, "a list")


def optional(check: Check) -> Check:
  """What `check` takes, or None."""
  return lambda key, value: None if value is None else check(key, value)


def every(*checks: Check) -> Check:
  """What all of these take."""

  def check(key: str, value: Any) -> None:
    for each in checks:
      each(key, value)

  return check


def each(check: Check, least: int = 0) -> Check:
  """A number, a text of values with commas, or a list, each of which `check` takes."""

  def checked(key: str, value: Any) -> None:
    if value is not None and not isinstance(value, str | numbers.Real | tuple | list):
      refuse(key, value, "a value, several separated by commas, or a list")
    found = listing.split_names(value)
    if isinstance(value, bool) or len(found) < least:
      refuse(key, value, f"a list of at least {least}")
    for item in found:
      check(key, item)

  return checked


def parsed(function: Callable[[Any], Any]) -> Check:
  """What a function takes that raises an InputError for the rest."""

  def check(key: str, value: Any) -> None:
    try:
      function(value)
    except InputError as error:
      found = str(error)
      raise InputError(found if key in found else f"{key}: {found}") from error

  return check
