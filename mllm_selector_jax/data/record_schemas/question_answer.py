"""Records that hold a question and its answer in two fields, and maybe a history."""

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

Read = Callable[[Mapping[str, Any], list[Picture]], list[Turn]]


def read_instruction(value: Mapping[str, Any], named: list[Picture]) -> list[Turn]:
  """Alpaca's form: the input stands on a line after the instruction."""
  lines = [_read(value, "instruction", named)]
  if value.get("input"):
    lines.append(_read(value, "input", named))
  return [
    *_read_history(value, named),
    Turn(HUMAN, "\n".join(line for line in lines if line)),
    Turn(GPT, _read(value, "output", named)),
  ]


def read_prompt(value: Mapping[str, Any], named: list[Picture]) -> list[Turn]:
  """TRL's form: each side is text, or messages."""
  turns: list[Turn] = []
  for field, speaker in (("prompt", HUMAN), ("completion", GPT)):
    if isinstance(value[field], list | dict):
      turns += read_turns(value[field], named, field)
    else:
      turns.append(Turn(speaker, _read(value, field, named)))
  return turns


def make_reader(question: str, answer: str) -> Read:
  """Reads a question and an answer from the fields of these names."""

  def read(value: Mapping[str, Any], named: list[Picture]) -> list[Turn]:
    return [
      *_read_history(value, named),
      Turn(HUMAN, _read(value, question, named)),
      Turn(GPT, _read(value, answer, named)),
    ]

  return read


def _read_history(value: Mapping[str, Any], named: list[Picture]) -> list[Turn]:
  found = value.get("history")
  return read_turns(found, named, "history") if found else []


def _read(value: Mapping[str, Any], field: str, named: list[Picture]) -> str:
  found = value[field]
  if isinstance(found, int) and not isinstance(found, bool):
    return str(found)
  if isinstance(found, list) and found and all(isinstance(x, str) for x in found):
    raise RowError("malformed", f"{field} holds {len(found)} texts where one is due")
  if not isinstance(found, str | list):
    raise RowError("malformed", f"{field} is {type(found).__name__}, not text")
  return read_text(found, 0, named)
