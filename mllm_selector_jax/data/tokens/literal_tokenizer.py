"""Makes tokenizers that treat the text of chosen added tokens as ordinary text."""

import json
from collections.abc import Collection, Iterable
from typing import Any

from mllm_selector_jax.data.tokens.tokenizer_bounds import check_expressions
from mllm_selector_jax.types import InputError


def first_token(encoding: Any, start: int) -> int:
  """Returns the index of the first token that ends after the character `start`."""
  token = encoding.char_to_token(start)
  if token is not None:
    return token
  # The character yields no token, for example because a normaliser deleted it.
  for token, (_, end) in enumerate(encoding.offsets):
    if end > start:
      return token
  return len(encoding.ids)


def find_span(encoding: Any, start: int, stop: int, text: str) -> tuple[int, int, bool]:
  """Finds the tokens of the characters from `start` to `stop`.

  Args:
    encoding: the result of encoding `text` with a fast tokenizer.
    start: the index of the first character.
    stop: the index after the last character.
    text: the text that was encoded.

  Returns:
    The index of the first token, the index after the last token, and whether the first
    token also holds characters before `start` that are not blanks.
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
  """Finds the tokens that lie, apart from blanks, completely in spans of characters.

  Args:
    encoding: the result of encoding `text` with a fast tokenizer.
    spans: start and stop of each span, in characters.
    text: the text that was encoded.

  Returns:
    Start and stop of each span, in tokens.
  """
  token_spans = []
  for start, stop in spans:
    if start >= len(text):
      continue
    first, last, straddles = find_span(encoding, start, stop, text)
    first += straddles
    if last > first and text[stop : encoding.token_to_chars(last - 1)[1]].strip(" "):
      last -= 1
    token_spans.append((first, last))
  return token_spans


def check_tokenizer(tokenizer: Any, image_token: int) -> None:
  """Refuses a tokenizer with which conversations and images cannot be encoded.

  Raises:
    InputError: it is not a fast tokenizer, or does not know the image token.
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
  """Makes two tokenizers that treat the text of some added tokens as ordinary text.

  Args:
    tokenizer: a fast tokenizer of transformers.
    literal: the ids of these tokens. They are skipped when ids are decoded. All other
      added tokens are recognised in a text as transformers does.

  Returns:
    A tokenizer for text at the beginning of a row, and one for text after an end of
    sequence. Some tokenizers prepend a blank to the former and not to the latter.

  Raises:
    InputError: the tokenizer has a regular expression that takes too long, or its
      parts do not fit each other.
  """
  state = json.loads(tokenizer.backend_tokenizer.to_str())
  check_expressions(state)
  # Without its post-processor, a tokenizer adds no tokens and does not trim offsets.
  state["post_processor"] = state["truncation"] = state["padding"] = None
  for token in state["added_tokens"]:
    token["special"] = token["id"] in literal
  first = _make_tokenizer(state)
  first.encode_special_tokens = True
  if not _never_prepend(state["pre_tokenizer"]):
    return first, first
  after = _make_tokenizer(state)
  after.encode_special_tokens = True
  return first, after


def _make_tokenizer(state: dict[str, Any]) -> Any:
  from tokenizers import Tokenizer

  try:
    return Tokenizer.from_str(json.dumps(state))
  except Exception as error:  # the library raises nothing more exact
    raise InputError(
      f"The base's tokenizer cannot be made again from its own state: {error}. Compare"
      " its tokenizer.json with the one that was published."
    ) from error


def _never_prepend(state: Any) -> bool:
  """Changes Metaspace's prepend scheme from "first" to "never", in place.

  Returns:
    Whether a scheme was changed.
  """
  if not isinstance(state, dict):
    return False
  is_first = state.get("prepend_scheme") == "first"
  if is_first:
    state["prepend_scheme"] = "never"
  return any([is_first, *map(_never_prepend, state.get("pretokenizers", ()))])
