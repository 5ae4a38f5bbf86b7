"""Refuses a base's tokenizer whose regular expressions would run nearly for ever.

`tokenizer.json` splits and replaces text by regular expressions, which come with the
model. One such as `(a+)+$` takes time that is exponential in the length of a text. The
library ends each attempt at a match after ten million steps, by a panic that is no
ordinary exception; many attempts just below that are hours.
"""

import contextlib
import functools
import itertools
import time
from collections.abc import Iterator
from typing import Any

from mllm_selector_jax.panics import explaining_panics
from mllm_selector_jax.types import InputError

MOST_SECONDS = 0.25  # of processor time, for a probe; published expressions take 1 ms
# Of the probes, in characters. Each takes little longer than the one before, so that
# the first slow one ends the search.
_LENGTHS = (20, 30, 45, 70, 105, 160, 240)
# Of each kind that expressions tell apart: letters, digits, blanks and punctuation.
_COMMON = "aAé中1 \n\t'!._-"
_MOST_PROBED = 200  # characters that an expression names
_REMEDY = (
  " Put a tokenizer.json of the model as it was published into the base's directory."
)


def explaining_failures() -> contextlib.AbstractContextManager[None]:
  """Raises an InputError in place of a panic while a text is encoded."""
  return explaining_panics(
    "The base's tokenizer fails on a text (a regular expression of its tokenizer.json"
    " may need too many steps)",
    _REMEDY,
  )


def check_expressions(state: Any) -> None:
  """Tries the regular expressions of a tokenizer on texts that are hard for some.

  Args:
    state: the tokenizer as its JSON, parsed.

  Raises:
    InputError: one of them takes far longer than those of published tokenizers.
  """
  for expression in sorted(set(_list_expressions(state))):
    _check_expression(expression)


def _list_expressions(state: Any) -> Iterator[str]:
  left = [state.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")]
  while left:
    item = left.pop()
    if isinstance(item, dict):
      expression = item.get("Regex")
      if isinstance(expression, str):
        yield expression
      left.extend(item.values())
    elif isinstance(item, list):
      left.extend(item)


@functools.lru_cache(maxsize=256)
def _check_expression(expression: str) -> None:
  from tokenizers import Regex, pre_tokenizers

  split = pre_tokenizers.Split(Regex(expression), "isolated")
  named = dict.fromkeys(_COMMON + expression)
  # Attempts are skipped where a text that each match needs does not follow.
  ends = ("", "".join(named))
  for character in [*named][:_MOST_PROBED]:
    for length, end in itertools.product(_LENGTHS, ends):
      start = time.thread_time()
      with explaining_failures():
        split.pre_tokenize_str(f"{character * length}\0{end}")
      if (seconds := time.thread_time() - start) > MOST_SECONDS:
        raise InputError(
          f"The base's tokenizer splits text by the regular expression"
          f" {expression[:200]!r}, which takes {seconds:.1f} s for {length + 1}"
          f" characters.{_REMEDY}"
        )
