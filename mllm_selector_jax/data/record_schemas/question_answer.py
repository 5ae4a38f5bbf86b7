"""Reads records that hold a question and its answer in two fields."""

from collections.abc import Callable, Mapping
from typing import Any

from mllm_selector_jax.data.record_schemas.turns import (
  GPT,
  HUMAN,
  Turn,
  read_text,
  read_turns,
)
from mllm_selector_jax.types import Picture, RowError

# Returns the turns of a record, and appends the images among them to the list.
Read = Callable[[Mapping[str, Any], list[Picture]], list[Turn]]


def make_instruction_reader(instruction: str, content: str, answer: str) -> Read:
  """Makes a reader of Alpaca's schema, whose fields have these names.

  The input, which `content` names, is put on a line after the instruction.
  """

  def read(value: Mapping[str, Any], named: list[Picture]) -> list[Turn]:
    lines = [_read(value, instruction, named)]
    if value.get(content):
      lines.append(_read(value, content, named))
    return [
      *_read_history(value, named),
      Turn(HUMAN, "\n".join(line for line in lines if line)),
      Turn(GPT, _read(value, answer, named)),
    ]

  return read


def read_prompt(value: Mapping[str, Any], named: list[Picture]) -> list[Turn]:
  """Reads TRL's schema, in which prompt and completion are texts or messages."""
  turns: list[Turn] = []
  for field, speaker in (("prompt", HUMAN), ("completion", GPT)):
    if isinstance(value[field], list | dict):
      turns += read_turns(value[field], named, field)
    else:
      turns.append(Turn(speaker, _read(value, field, named)))
  return turns


def make_reader(question: str, answer: str) -> Read:
  """Makes a reader of records whose question and answer are in these fields."""

  def read(value: Mapping[str, Any], named: list[Picture]) -> list[Turn]:
    return [
      *_read_history(value, named),
      Turn(HUMAN, _read(value, question, named)),
      Turn(GPT, _read(value, answer, named)),
    ]

  return read


def _read_history(value: Mapping[str, Any], named: list[Picture]) -> list[Turn]:
  history = value.get("history")
  return read_turns(history, named, "history") if history else []


def _read(value: Mapping[str, Any], field: str, named: list[Picture]) -> str:
  """Reads the text of one field."""
  content = value[field]
  if isinstance(content, int) and not isinstance(content, bool):
    return str(content)
  if isinstance(content, list) and content and all(isinstance(x, str) for x in content):
    raise RowError("malformed", f"{field} holds {len(content)} texts instead of one")
  if not isinstance(content, str | list):
    raise RowError("malformed", f"{field} is {type(content).__name__}, not text")
  return read_text(content, 0, named)
