"""Reads a record's conversation as rounds of question and answer."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.types import MARK, RowError


class Round(NamedTuple):
  """One question and its answer.

  Attributes:
    question, answer: the texts.
    learned: False if the record excludes the answer from the loss.
  """

  question: str
  answer: str
  learned: bool = True


class Dialogue(NamedTuple):
  """A conversation from which a model learns.

  Attributes:
    rounds: the questions and answers.
    system: the system text of the record; None if it has none.
  """

  rounds: list[Round]
  system: str | None


def read_dialogue(conversations: Any) -> Dialogue:
  """Reads a record's conversation; see `read_rounds` and `read_system`.

  Raises:
    RowError: it is not a list of alternating human and gpt turns.
  """
  return Dialogue(read_rounds(conversations), read_system(conversations))


def read_rounds(conversations: Any) -> list[Round]:
  """Reads the rounds of a record's conversation.

  Turns before the first human turn are dropped, as in LLaVA, and so is a last question
  without an answer.

  Args:
    conversations: a list of turns in LLaVA's format.

  Raises:
    RowError: it is not a list of alternating human and gpt turns.
  """
  if not isinstance(conversations, list):
    raise RowError("malformed", "conversations is not a list")
  rounds: list[Round] = []
  question: str | None = None
  for index, turn in enumerate(conversations):
    if not isinstance(turn, dict):
      raise RowError("malformed", f"turn {index} is not an object")
    role, value = turn.get("from"), turn.get("value")
    if role != "human" and question is None and not rounds:
      continue
    if not isinstance(value, str):
      raise RowError("malformed", f"turn {index} has no text in value")
    expected_role = "human" if question is None else "gpt"
    if role != expected_role:
      raise RowError(
        "malformed",
        f"turn {index} is from {repr(role)[:40]}, where {expected_role} is expected",
      )
    if question is None:
      question = value
    else:
      rounds.append(Round(question, value, turn.get("loss") is not False))
      question = None
  return rounds


def check_rounds(rounds: Sequence[Round], images: int) -> set[int]:
  """Refuses rounds that cannot be learned from.

  Args:
    rounds: of the conversation.
    images: how many the record has; each stands at a mark of a question.

  Returns:
    The numbers of the rounds whose answers the record masks.

  Raises:
    RowError: no answer is learned, or marks and images differ in number.
  """
  if not any(pair.answer.strip() for pair in rounds):
    raise RowError("no supervised token", "no turn from gpt holds an answer")
  masked = {turn for turn, pair in enumerate(rounds) if not pair.learned}
  if len(masked) == len(rounds):
    raise RowError("no supervised token", "the record masks every answer")
  asked = sum(each.question.count(MARK) for each in rounds)
  answered = sum(each.answer.count(MARK) for each in rounds)
  if images and answered:
    raise RowError("image marks", f"{MARK} stands in an answer")
  if asked != images:
    held = {0: "no image", 1: "one image"}.get(images, f"{images} images")
    raise RowError("image marks", f"{asked} {MARK} in the questions, {held}")
  return masked


def read_system(conversations: list[dict[str, Any]]) -> str | None:
  """Returns the system text of a conversation; None if it has none."""
  first = conversations[0] if conversations else None
  if not isinstance(first, dict) or first.get("from") != "system":
    return None
  text = first.get("value")
  return text if isinstance(text, str) and text.strip() else None


def hash_answers(rounds: Sequence[Round]) -> int:
  """Hashes the answers of a conversation to a number that is never 0.

  Case, blanks around an answer and full stops at its end are ignored.
  """
  texts = [r.answer.strip().rstrip(".。").rstrip().casefold() for r in rounds]
  digest = hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).digest()
  return int.from_bytes(digest, "big") or 1
