"""Reads the turns of a conversation, in every form that published records use."""

import json
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

from mllm_selector_jax.data.record_schemas.content_parts import join_parts
from mllm_selector_jax.types import Picture, RowError

HUMAN, GPT, SYSTEM = "human", "gpt", "system"
# Maps the names of speakers in records, in lower case, to ours.
SPEAKERS = {
  **dict.fromkeys(("human", "user"), HUMAN),
  **dict.fromkeys(("gpt", "assistant", "model", "bot"), GPT),
  **dict.fromkeys(("chatgpt", "bing", "bard"), GPT),
  "system": SYSTEM,
}
TOOLS = (
  *("function_call", "function", "tool_call", "tool_response", "tool"),
  *("observation", "observations", "function_response"),
)
_PLAIN = frozenset((HUMAN, GPT, SYSTEM))
_SPEAKER_FIELDS = ("from", "role")
_TEXT_FIELDS = ("value", "content")
_CALL_FIELDS = ("tool_calls", "function_call")
_LEARNED_FIELDS = ("loss", "weight", "loss_weight", "train")
# Names of the two fields of an object that holds a question and its answer.
_PAIRS = (
  *(("user", "assistant"), ("human", "assistant"), ("human", "gpt")),
  *(("question", "answer"), ("query", "response")),
)
_KNOWN = {*_SPEAKER_FIELDS, *_TEXT_FIELDS}


class Turn(NamedTuple):
  """One turn of a conversation.

  Attributes:
    speaker: `HUMAN`, `GPT` or `SYSTEM`; otherwise the name that the record gives.
    text: what is said, with an `<image>` mark for each image.
    learned: False if the record excludes the turn from the loss.
    extra: fields of the turn that are not read.
  """

  speaker: str
  text: str
  learned: bool = True
  extra: Mapping[str, Any] = types.MappingProxyType({})


def read_turns(value: Any, named: list[Picture], field: str) -> list[Turn]:
  """Reads the turns that a field of a record holds.

  Args:
    value: a list of turns or of question-answer pairs; a struct of lists, which
      `datasets` makes from a list of structs; or one of these as JSON text.
    named: the list to which the images among the turns' parts are appended.
    field: the name of the field, for messages.

  Raises:
    RowError: the value is none of these, or the conversation calls tools.
  """
  if isinstance(value, list) and (plain := _read_plain(value)) is not None:
    return plain
  items = _list_items(value, field)
  turns: list[Turn] = []
  has_roles = False
  for index, item in enumerate(items):
    if isinstance(item, list) and len(item) == 2:
      item = dict(zip(_PAIRS[0], item, strict=True))  # as in a `history`
    if not isinstance(item, dict):
      raise RowError("malformed", f"turn {index} is not an object")
    pair = next((p for p in _PAIRS if p[0] in item and p[1] in item), None)
    if pair is not None:
      turns += _read_pair(item, pair, index, named)
    else:
      turns.append(_read_turn(item, index, named))
      has_roles |= item.get("role") is not None
  return _join_speakers(turns) if has_roles else turns


def _read_plain(items: list[Any]) -> list[Turn] | None:
  """Reads turns in LLaVA's format, which most rows have.

  Returns:
    None if a turn has another form.
  """
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
  """Returns the turns of a field as a list, before they are read one by one."""
  if isinstance(value, str):
    try:
      value = json.loads(value)
    except (ValueError, RecursionError):
      raise RowError("malformed", f"{field} is text, and not JSON of turns") from None
  if isinstance(value, dict):
    columns = {name: column for name, column in value.items() if column is not None}
    lists, names = list(columns.values()), list(columns)
    if lists and all(isinstance(column, list) for column in lists):
      if len({len(column) for column in lists}) > 1:
        raise RowError("malformed", f"the lists of {field} differ in length")
      return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
    if any(name in value for name in (*_SPEAKER_FIELDS, *_TEXT_FIELDS)):
      return [value]
  if not isinstance(value, list):
    raise RowError("malformed", f"{field} is not a list")
  return value


def _read_turn(item: dict[str, Any], index: int, named: list[Picture]) -> Turn:
  speaker = next((item[f] for f in _SPEAKER_FIELDS if item.get(f) is not None), None)
  if not isinstance(speaker, str):
    raise RowError("malformed", f"turn {index} names no speaker in from or role")
  name = speaker.strip().lower()
  call_field = next((field for field in _CALL_FIELDS if item.get(field)), None)
  if name in TOOLS or call_field:
    raise RowError("tool calls", f"turn {index} is from {call_field or speaker}")
  text = next((item[f] for f in _TEXT_FIELDS if item.get(f) is not None), None)
  text = read_text(text, index, named)
  learned, read = _read_learned(item)
  extra = {k: v for k, v in item.items() if k not in _KNOWN and k not in read}
  return Turn(SPEAKERS.get(name, speaker), text, learned, extra)


def _read_pair(
  item: dict[str, Any], pair: tuple[str, str], index: int, named: list[Picture]
) -> list[Turn]:
  question, answer = (read_text(item[name], index, named) for name in pair)
  learned, read = _read_learned(item)
  known = (*pair, *read, "source")  # the field source is read by `data/pool/sources.py`
  extra = {k: v for k, v in item.items() if k not in known}
  return [Turn(HUMAN, question), Turn(GPT, answer, learned, extra)]


def read_text(value: Any, index: int, named: list[Picture]) -> str:
  """Reads the text of a turn, which may be given as parts of text and images.

  Args:
    value: a text, a part, or a list of parts.
    index: the number of the turn, for messages.
    named: the list to which the images of the parts are appended.

  Raises:
    RowError: the value is no text, or has a part that is neither text nor an image.
  """
  if isinstance(value, dict):
    value = [value]
  if isinstance(value, list):
    return join_parts(value, index, named)
  if value is None:
    raise RowError("malformed", f"turn {index} has no text in value or content")
  if not isinstance(value, str):
    raise RowError("malformed", f"turn {index} is {type(value).__name__}, not text")
  return value


def _read_learned(item: dict[str, Any]) -> tuple[bool, list[str]]:
  """Returns whether a turn may be learned, and the fields that decide it."""
  learned, read = True, []
  for field in _LEARNED_FIELDS:
    if (weight := item.get(field)) in (0, 1) and weight is not None:
      learned &= bool(weight)
      read.append(field)
  return learned, read


def _join_speakers(turns: list[Turn]) -> list[Turn]:
  """Joins consecutive messages of one speaker to one turn, on a line each."""
  joined: list[Turn] = []
  for turn in turns:
    last = joined[-1] if joined else None
    if last and last.speaker == turn.speaker and last.learned == turn.learned:
      text = f"{last.text}\n{turn.text}"
      joined[-1] = last._replace(text=text, extra={**last.extra, **turn.extra})
    else:
      joined.append(turn)
  return joined
