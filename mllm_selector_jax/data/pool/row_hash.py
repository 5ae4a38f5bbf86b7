"""A row's content hash: the same in every format, and in every export read back."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from mllm_selector_jax.data.record_schemas import Grounding
from mllm_selector_jax.types import MARK

# Blanks around an image's mark say nothing: exports write them as their format does.
_MARK_BLANKS = re.compile(rf"[ \t\n]*{MARK}[ \t\n]*")
_FIRST = f"{MARK}\n"
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def hash_row(
  conversations: list[dict[str, Any]],
  image_hashes: Sequence[str],
  grounding: Grounding | None = None,
) -> str:
  """Identity of a row's content, whatever its id, place and format.

  Args:
    conversations: as `record_schemas.Content` has them.
    image_hashes: SHA-256 of each image file's bytes; empty for text alone.
    grounding: the boxes and names that the turns have marks for; None for none.
  """
  turns = [
    {**turn, "value": _normalise(turn["value"])} if MARK in turn["value"] else turn
    for turn in conversations
  ]
  text = f"{_CANONICAL.encode(turns)}\n{','.join(image_hashes)}"
  if grounding is not None:
    text += f"\n{_CANONICAL.encode(grounding)}"
  return hashlib.sha256(text.encode()).hexdigest()[:32]


def _write_mark(match: re.Match) -> str:
  """A mark on a line of its own, however the text has it."""
  before = "\n" if match.start() else ""
  return f"{before}{MARK}\n" if match.end() < len(match.string) else f"{before}{MARK}"


def _normalise(text: str) -> str:
  """The text with each of its marks on a line of its own."""
  if text.startswith(_FIRST) and text.count(MARK) == 1:
    if text[len(_FIRST) : len(_FIRST) + 1].strip():
      return text  # as most texts have it
  return _MARK_BLANKS.sub(_write_mark, text)
