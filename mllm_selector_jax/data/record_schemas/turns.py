"""The turns of a conversation, in every form in which published records have them."""

import json
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

from mllm_selector_jax.data.record_schemas.content_parts import join_parts
from mllm_selector_jax.types import Picture, RowError

HUMAN, GPT, SYSTEM = "human", "gpt", "system"
# By the record's word, in lower case.
SPEAKERS = {
  **dict.fromkeys(("human", "user"), HUMAN),
  **dict.fromkeys(("gpt", "assistant", "model", "bot"), GPT),
  **dict.fromkeys(("chatgpt", "bing", "bard"), GPT),
  "system": SYSTEM,
}
TOOLS = (
  *("function_call", "function", "tool_call", "tool_response", "tool"),
  "observation",
)
_PLAIN = frozenset((HUMAN, GPT, SYSTEM))
_SPEAKER_FIELDS = ("from", "role")
_TEXT_FIELDS = ("value", "content")
_CALL_FIELDS = ("tool_calls", "function_call")
_LEARNED_FIELDS = ("loss", "weight", "loss_weight", "train")
# A question and its answer in one object.
_PAIRS = (
  *(("user", "assistant"), ("human", "assistant"), ("human", "gpt")),
  *(("question", "answer"), ("query", "response")),
)
_KNOWN = {*_SPEAKER_FIELDS, *_TEXT_FIELDS}


class Turn(NamedTuple):
  """What one speaker says.

  Attributes:
    speaker: `HUMAN`, `GPT` or `SYSTEM`; otherwise the record's own word.
    text: with `<image>` where an image stands.
    learned: whether the record lets an answer be learned.
    extra: fields of the record's turn that are not read.
  """

  speaker: str
  text: str
  learned: bool = True
  extra: Mapping[str, Any] = types.MappingProxyType({})


def read_turns(value: Any, named: list[Picture], field: str) -> list[Turn]:
  """The turns that a record's field holds.

  Args:
    value: a list of turns or of question-answer pairs, a struct of lists (what
      `datasets` makes of a list of structs), or JSON text of these.
    named: takes the images that stand among the turns' parts.
    field: the name, for messages.

  Raises:
    RowError: it is none of these, or the conversation calls tools.
  """
  if isinstance(value, list) and (plain := _read_plain(value)) is not None:
    return plain
  items = _list_items(value, field)
  turns: list[Turn] = []
  joins = False
  for place, item in enumerate(items):
    if isinstance(item, list) and len(item) == 2:
      item = dict(zip(_PAIRS[0], item, strict=True))  # as in a `history`
    if not isinstance(item, dict):
      raise RowError("malformed", f"turn {place} is not an object")
    pair = next((p for p in _PAIRS if p[0] in item and p[1] in item), None)
    if pair is not None:
      turns += _read_pair(item, pair, place, named)
    else:
      turns.append(_read_turn(item, place, named))
      joins |= item.get("role") is not None
  return _join_speakers(turns) if joins else turns


def _read_plain(items: list[Any]) -> list[Turn] | None:
  """Turns of LLaVA's own form, which most rows have; None if one is of another."""
  turns = []
  for item in items:
    if type(item) is not dict or len(item) != 2:
      return None
    speaker, text = item.get("from"), item.get("value")
    if type(speaker) is not str or speaker not in _PLAIN or type(text) is not str:
      return None
    turns.append(Turn(speaker, text))
  return turns


def _list_items(value: Any, field: str) -> list[Any]:
  if isinstance(value, str):
    try:
      value = json.loads(value)
    except (ValueError, RecursionError):
      raise RowError("malformed", f"{field} is text, and not JSON of turns") from None
  if isinstance(value, dict):
    lists = [each for each in value.values() if each is not None]
    if lists and all(isinstance(each, list) for each in lists):
      if len({len(each) for each in lists}) > 1:
        raise RowError("malformed", f"the lists of {field} differ in length")
      names = [name for name, each in value.items() if each is not None]
      return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
    if any(name in value for name in (*_SPEAKER_FIELDS, *_TEXT_FIELDS)):
      return [value]
  if not isinstance(value, list):
    raise RowError("malformed", f"{field} is not a list")
  return value


def _read_turn(item: dict[str, Any], place: int, named: list[Picture]) -> Turn:
  speaker = next((item[f] for f in _SPEAKER_FIELDS if item.get(f) is not None), None)
  if not isinstance(speaker, str):
    raise RowError("malformed", f"turn {place} names no speaker in from or role")
  name = speaker.strip().lower()
  called = next((field for field in _CALL_FIELDS if item.get(field)), None)
  if name in TOOLS or called:
    raise RowError("tool calls", f"turn {place} is from {called or speaker}")
  text = next((item[f] for f in _TEXT_FIELDS if item.get(f) is not None), None)
  text = read_text(text, place, named)
  learned, read = _read_learned(item)
  extra = {k: v for k, v in item.items() if k not in _KNOWN and k not in read}
  return Turn(SPEAKERS.get(name, speaker), text, learned, extra)


def _read_pair(
  item: dict[str, Any], pair: tuple[str, str], place: int, named: list[Picture]
) -> list[Turn]:
  question, answer = (read_text(item[name], place, named) for name in pair)
  learned, read = _read_learned(item)
  known = (*pair, *read, "source")  # which `sources` reads
  extra = {k: v for k, v in item.items() if k not in known}
  return [Turn(HUMAN, question), Turn(GPT, answer, learned, extra)]


def read_text(value: Any, place: int, named: list[Picture]) -> str:
  """A turn's text, from text or from parts of text and image."""
  if isinstance(value, dict):
    value = [value]
  if isinstance(value, list):
    return join_parts(value, place, named)
  if value is None:
    raise RowError("malformed", f"turn {place} has no text in value or content")
  if not isinstance(value, str):
    raise RowError("malformed", f"turn {place} is {type(value).__name__}, not text")
  return value


def _read_learned(item: dict[str, Any]) -> tuple[bool, list[str]]:
  """Whether a turn may be learned, and which fields say so."""
  learned, read = True, []
  for field in _LEARNED_FIELDS:
    if (given := item.get(field)) in (0, 1) and given is not None:
      learned &= bool(given)
      read.append(field)
  return learned, read


def _join_speakers(turns: list[Turn]) -> list[Turn]:
  """Messages of one speaker that follow each other are one turn, a line each."""
  joined: list[Turn] = []
  for turn in turns:
    last = joined[-1] if joined else None
    if last and last.speaker == turn.speaker and last.learned == turn.learned:
      text = f"{last.text}\n{turn.text}"
      joined[-1] = last._replace(text=text, extra={**last.extra, **turn.extra})
    else:
      joined.append(turn)
  return joined
