"""A record's conversation, read as rounds of question and answer."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.types import MARK, RowError


class Round(NamedTuple):
  """One question and its answer.

  Attributes:
    question, answer: their texts.
    learned: whether the record lets the answer be learned.
  """

  question: str
  answer: str
  learned: bool = True


class Dialogue(NamedTuple):
  """A conversation as it is learned from.

  Attributes:
    rounds: its questions and answers.
    system: its own system text; None if it has none.
  """

  rounds: list[Round]
  system: str | None


def read_dialogue(conversations: Any) -> Dialogue:
  """A record's conversation, see `read_rounds` and `read_system`.

  Raises:
    RowError: it is not a list of alternating human and gpt turns.
  """
  return Dialogue(read_rounds(conversations), read_system(conversations))


def read_rounds(conversations: Any) -> list[Round]:
  """The rounds of a record's conversation.

  What precedes the first human turn is dropped, as LLaVA does; so is a last
  question without an answer.

  Raises:
    RowError: it is not a list of alternating human and gpt turns.
  """
  if not isinstance(conversations, list):
    raise RowError("malformed", "conversations is not a list")
  rounds: list[Round] = []
  question: str | None = None
  for place, turn in enumerate(conversations):
    if not isinstance(turn, dict):
      raise RowError("malformed", f"turn {place} is not an object")
    role, value = turn.get("from"), turn.get("value")
    if role != "human" and question is None and not rounds:
      continue
    if not isinstance(value, str):
      raise RowError("malformed", f"turn {place} has no text in value")
    if role != ("human" if question is None else "gpt"):
      wanted = "human" if question is None else "gpt"
      raise RowError(
        "malformed",
        f"turn {place} is from {repr(role)[:40]}, where {wanted} is expected",
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
    The rounds whose answers the record masks.

  Raises:
    RowError: no answer is learned, or marks and images differ in number.
  """
  if not any(each.answer.strip() for each in rounds):
    raise RowError("no supervised token", "no turn from gpt holds an answer")
  masked = {turn for turn, each in enumerate(rounds) if not each.learned}
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
  """The conversation's own system text, None if it has none."""
  first = conversations[0] if conversations else None
  if not isinstance(first, dict) or first.get("from") != "system":
    return None
  text = first.get("value")
  return text if isinstance(text, str) and text.strip() else None


def hash_answers(rounds: Sequence[Round]) -> int:
  """A number that is equal where all answers are, and never 0.

  Case, blanks around an answer and full stops at its end make no difference.
  """
  texts = [r.answer.strip().rstrip(".。").rstrip().casefold() for r in rounds]
  digest = hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).digest()
  return int.from_bytes(digest, "big") or 1
