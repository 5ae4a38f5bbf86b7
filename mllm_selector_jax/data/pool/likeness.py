"""Identifies a record by its content, where its id does not distinguish it.

The text of its rounds and the name of its first image: the same for a record as it
stands in the pool and as another format, or a trainer's export, has it.
"""

import hashlib
import json
from typing import NamedTuple

from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.data.tokens.dialogue import read_rounds
from mllm_selector_jax.types import MARK, Record, RowError


class Likeness(NamedTuple):
  """A record's own features.

  Attributes:
    text: a digest of its questions and answers, without the marks of images.
    image: the name of its first image; None where it has none, or none with a name.
  """

  text: bytes
  image: str | None


def read_likeness(record: Record) -> Likeness | None:
  """The likeness of a record; None where it holds no conversation."""
  try:
    content = record_schemas.read_as_is(record)
  except RowError:
    return None
  try:
    rounds = read_rounds(content.conversations)
    turns = [_strip(text) for each in rounds for text in (each.question, each.answer)]
  except RowError:
    turns = [json.dumps(content.conversations, sort_keys=True, default=str)]
  if content.grounding is not None:
    turns.append(json.dumps(content.grounding))
  # With their lengths, so that no two lists of turns are one text.
  text = "".join(f"{len(turn)}:{turn}" for turn in turns)
  digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
  name = content.pictures[0].name if content.pictures else None
  return Likeness(digest, name)


def _strip(text: str) -> str:
  """Removes the marks of images, whose place some formats change or omit."""
  if MARK not in text:
    return text.strip()
  pieces = (piece.strip() for piece in text.split(MARK))
  return "\n".join(piece for piece in pieces if piece)
