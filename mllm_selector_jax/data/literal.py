"""Tokenizers that take a user's text literally, special-token text included."""

import json
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


def make_literal(tokenizer: Any, image_token: int) -> tuple[Any, Any]:
  """Two tokenizers that take all text literally.

  Returns:
    One for text on its own, and one for text after an end of sequence, where some
    tokenizers do not put the blank that they put before a text's first word.
  """
  from tokenizers import Tokenizer

  backend = getattr(tokenizer, "backend_tokenizer", None)
  if not isinstance(backend, Tokenizer):
    raise InputError(
      f"The base's tokenizer ({type(tokenizer).__name__}) is not a fast one; its"
      " directory needs a tokenizer.json."
    )
  if image_token >= len(tokenizer) or image_token < 0:
    raise InputError(
      f"The base's image token is {image_token}, its tokenizer has {len(tokenizer)}"
      " tokens. Add <image> to the tokenizer and name its id in config.json."
    )
  state = json.loads(backend.to_str())
  # Without its post-processor a tokenizer adds nothing and trims no offsets.
  state["post_processor"] = state["truncation"] = state["padding"] = None
  special = set(tokenizer.all_special_ids) | {image_token}
  for token in state["added_tokens"]:
    token["special"] = token["special"] or token["id"] in special
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
