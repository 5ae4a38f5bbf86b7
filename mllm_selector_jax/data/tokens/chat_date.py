"""Fixes the date that a chat template writes, so that it is the same on every day.

Some templates, such as that of Llama 3.1, write the day on which they are rendered
(`strftime_now`). Without a fixed date, the tokens of a row would change from day to
day, and a tuned model would be asked with a date that it never saw in training.
"""

import datetime
import re
from typing import Any

from mllm_selector_jax.types import InputError

# The date that Llama 3.1's template writes if `strftime_now` is not defined.
DEFAULT = "2024-07-26"
_CLOCK = "strftime_now"
_DIRECTIVE = re.compile("%([-_#]?)([A-Za-z%])")
_PERCENT = "\ue002"  # stands for a percent sign while directives are replaced


def read_date(value: Any) -> datetime.datetime:
  """Parses `model.chat_date`, a day with or without a time.

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
  """Returns whether a chat template asks for the time at which it is rendered."""
  fixed = re.search(rf"\bmacro\s+{_CLOCK}\b", source)  # see `fix_date`
  return fixed is None and re.search(rf"\b{_CLOCK}\b", source) is not None


def fix_date(source: str, date: datetime.datetime) -> str:
  """Changes a chat template so that it writes a fixed date.

  Returns:
    The source after a macro that replaces `strftime_now` and formats this date. The
    source itself if it does not ask for the time.
  """
  if not asks_date(source):
    return source
  # The macro replaces every directive that occurs in the source. Doubled percent signs
  # are replaced first, so that they are not read as the beginning of a directive.
  matches = {match[0]: match for match in _DIRECTIVE.finditer(source)}
  texts = {directive: _format(date, match) for directive, match in matches.items()}
  steps = [("%%", _PERCENT)] if "%%" in texts else []
  steps += [(key, text) for key, text in sorted(texts.items()) if text is not None]
  steps += [(_PERCENT, "%")] if "%%" in texts else []
  replaced = "".join(f" | replace('{key}', '{text}')" for key, text in steps)
  # The macro is on a line of its own. Jinja drops the line break after it, so that the
  # text of the template is unchanged.
  return (
    f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{replaced} }}}}{{%- endmacro %}}\n"
    f"{source}"
  )


def _format(date: datetime.datetime, match: re.Match) -> str | None:
  """Formats the date by one directive; returns None for an unknown directive."""
  flag, letter = match[1], match[2]
  if letter in "%sZz":  # all but % depend on the time zone, which a date does not have
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
