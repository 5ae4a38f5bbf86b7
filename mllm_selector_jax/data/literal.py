"""Tokenizers that take a user's text literally, the text of chosen tokens included."""

import json
from collections.abc import Collection, Iterable
from typing import Any

from mllm_selector_jax.types import InputError


def first_token(encoding: Any, start: int) -> int:
  """The first token whose characters reach beyond `start`."""
  token = encoding.char_to_token(start)
  if token is not None:
    return token
  # A character that yields no token, as a normaliser's deletions.
  for token, (_, end) in enumerate(encoding.offsets):
    if end > start:
      return token
  return len(encoding.ids)


def find_span(encoding: Any, start: int, stop: int, text: str) -> tuple[int, int, bool]:
  """The tokens of the characters from `start` to `stop`.

  Args:
    text: that was encoded.

  Returns:
    The first token, the one after the last, and whether the first also holds
    characters before `start`, other than blanks.
  """
  first = first_token(encoding, start)
  last = len(encoding.ids)
  if stop < len(text) and (token := encoding.char_to_token(stop - 1)) is not None:
    last = token + 1
  span = encoding.token_to_chars(first) if first < len(encoding.ids) else None
  straddles = span is not None and text[span[0] : start].strip(" ") != ""
  return first, last, straddles


def find_inside(
  encoding: Any, spans: Iterable[tuple[int, int]], text: str
) -> list[tuple[int, int]]:
  """The tokens that lie wholly, but for blanks, in spans of characters of `text`."""
  found = []
  for start, stop in spans:
    if start >= len(text):
      continue
    first, last, straddles = find_span(encoding, start, stop, text)
    first += straddles
    if last > first and text[stop : encoding.token_to_chars(last - 1)[1]].strip(" "):
      last -= 1
    found.append((first, last))
  return found


def check_tokenizer(tokenizer: Any, image_token: int) -> None:
  """Refuses a tokenizer that texts and images cannot be written with.

  Raises:
    InputError: it is not a fast one, or does not know the image token.
  """
  from tokenizers import Tokenizer

  if not isinstance(getattr(tokenizer, "backend_tokenizer", None), Tokenizer):
    raise InputError(
      f"The base's tokenizer ({type(tokenizer).__name__}) is not a fast one; its"
      " directory needs a tokenizer.json."
    )
  if image_token >= len(tokenizer) or image_token < 0:
    raise InputError(
      f"The base's image token is {image_token}, its tokenizer has {len(tokenizer)}"
      " tokens. Add <image> to the tokenizer and name its id in config.json."
    )


def make_literal(tokenizer: Any, literal: Collection[int]) -> tuple[Any, Any]:
  """Two tokenizers that take the text of some added tokens literally.

  Args:
    tokenizer: a fast one.
    literal: ids of these tokens, which are left out where ids are made text again.
      Any other added token is found in a text as transformers finds it.

  Returns:
    One for text on its own, and one for text after an end of sequence, where some
    tokenizers do not put the blank that they put before a text's first word.
  """
  from tokenizers import Tokenizer

  state = json.loads(tokenizer.backend_tokenizer.to_str())
  # Without its post-processor a tokenizer adds nothing and trims no offsets.
  state["post_processor"] = state["truncation"] = state["padding"] = None
  for token in state["added_tokens"]:
    token["special"] = token["id"] in literal
  first = Tokenizer.from_str(json.dumps(state))
  first.encode_special_tokens = True
  if not _never_prepend(state["pre_tokenizer"]):
    return first, first
  after = Tokenizer.from_str(json.dumps(state))
  after.encode_special_tokens = True
  return first, after


def _never_prepend(state: Any) -> bool:
  """Sets Metaspace's "first" to "never"; whether there was one."""
  if not isinstance(state, dict):
    return False
  found = state.get("prepend_scheme") == "first"
  if found:
    state["prepend_scheme"] = "never"
  return any([found, *map(_never_prepend, state.get("pretokenizers", ()))])
