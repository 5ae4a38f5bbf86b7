"""The date that a chat template writes: one date for a run, whatever day it is.

Some templates ask for the day on which they are rendered (`strftime_now`), as Llama
3.1's does. Rows that are tokenised tomorrow would be other rows than today's, and a
tuned model would be asked with a text that it never saw.
"""

import datetime
import re
from typing import Any

from mllm_selector_jax.types import InputError

# What Llama 3.1's template itself writes where no clock is at hand.
DEFAULT = "2024-07-26"
_CLOCK = "strftime_now"
_DIRECTIVE = re.compile("%([-_#]?)([A-Za-z%])")
_PERCENT = "\ue002"


def read_date(value: Any) -> datetime.datetime:
  """The value of model.chat_date, a day or a time of it.

  Raises:
    InputError: it is not written as 2024-07-26 or 2024-07-26T12:30.
  """
  try:
    return datetime.datetime.fromisoformat(value)
  except (TypeError, ValueError) as error:
    raise InputError(
      f"model.chat_date={value!r}: a date is written as 2024-07-26, with a time as"
      " 2024-07-26T12:30."
    ) from error


def asks_date(source: str) -> bool:
  """Whether a chat template asks for the time at which it is rendered."""
  fixed = re.search(rf"\bmacro\s+{_CLOCK}\b", source)  # as in our own exports
  return fixed is None and re.search(rf"\b{_CLOCK}\b", source) is not None


def fix_date(source: str, date: datetime.datetime) -> str:
  """A chat template that has a date in the place of the clock's.

  Returns:
    The source behind a macro that does what `strftime_now` does with this date; the
    source itself if it never asks for the time.
  """
  if not asks_date(source):
    return source
  # The macro knows the directives that the source spells. A doubled percent sign is
  # put out of the way before the others are read.
  found = {match[0]: match for match in _DIRECTIVE.finditer(source)}
  texts = {spelled: _format(date, match) for spelled, match in found.items()}
  steps = [("%%", _PERCENT)] if "%%" in texts else []
  steps += [(key, text) for key, text in sorted(texts.items()) if text is not None]
  steps += [(_PERCENT, "%")] if "%%" in texts else []
  replaced = "".join(f" | replace('{key}', '{text}')" for key, text in steps)
  # A line of its own: Jinja drops its end, and reads the source as it did before.
  return (
    f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{replaced} }}}}{{%- endmacro %}}\n"
    f"{source}"
  )


def _format(date: datetime.datetime, match: re.Match) -> str | None:
  """What a directive says of the date; None for one that says nothing of it."""
  flag, letter = match[1], match[2]
  if letter in "%sZz":  # these ask for a machine's time zone, which a date has not
    return None if letter in "%s" else ""
  try:
    text = date.strftime(f"%{letter}")
  except ValueError:
    return None
  if text in (f"%{letter}", letter) or "'" in text or "\\" in text:
    return None
  if flag and text.isdigit():
    text = text.lstrip("0") or "0"
  return text
