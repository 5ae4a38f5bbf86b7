"""The shapes that a record has in published pools, each read as one conversation.

`SCHEMAS` lists them; a new one is a line there, and a function where no other fits.
The same turns and images give the same content in each, whatever the shape.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.data.record_schemas.image_marks import (
  PLACED,
  REPEATED,
  place_marks,
  take_tags,
)
from mllm_selector_jax.data.record_schemas.image_values import (
  is_image_field,
  read_fields,
)
from mllm_selector_jax.data.record_schemas.question_answer import (
  Read,
  make_reader,
  read_instruction,
  read_prompt,
)
from mllm_selector_jax.data.record_schemas.refusals import is_preference, name_form
from mllm_selector_jax.data.record_schemas.turns import (
  GPT,
  HUMAN,
  SYSTEM,
  Turn,
  read_turns,
)
from mllm_selector_jax.types import MARK, Picture, Record, RowError

__all__ = [
  "GPT", "HUMAN", "LABELS", "PLACED", "REPEATED", "SCHEMAS", "SYSTEM", "Content",
  "Schema", "Turn", "is_image_field", "read_as_is", "read_content", "read_pictures",
]  # fmt: skip

_OTHER_MEDIA = frozenset(("video", "videos", "audio", "audios"))
_MEDIA_MARKS = ("<video>", "<audio>")
_SYSTEMS = ("system", "system_prompt")
LABELS = ("id", "source", "data_source")


class Schema(NamedTuple):
  """One shape of a record.

  Attributes:
    fields: that a record of this shape has; the first schema whose fields are all
      there reads it.
    read: gives the turns, and takes the images that stand among them.
    form: the shape, in words.
    source: where it is published.
    more: fields that are read where they are there.
  """

  fields: tuple[str, ...]
  read: Read
  form: str
  source: str
  more: tuple[str, ...] = ()


def _make_list_reader(field: str) -> Read:
  return lambda value, named: read_turns(value[field], named, field)


SCHEMAS = (
  Schema(
    ("conversations",),
    _make_list_reader("conversations"),
    "a list of `{from, value}` or `{role, content}` turns",
    "LLaVA, ShareGPT and LLaMA-Factory, InternVL, Qwen-VL (`<img>path</img>`)",
  ),
  Schema(
    ("messages",),
    _make_list_reader("messages"),
    "a list of `{role, content}` messages; content is text or a list of parts",
    "TRL, ms-swift, LLaMA-Factory, OpenAI",
  ),
  Schema(
    ("conversation",),
    _make_list_reader("conversation"),
    "a list of turns, or of `{human, assistant}` pairs",
    "ms-swift, XTuner",
  ),
  Schema(
    ("texts",),
    _make_list_reader("texts"),
    "a list of `{user, assistant}` pairs, or of `{role, content}` messages",
    "The Cauldron, FineVision",
  ),
  Schema(("prompt", "completion"), read_prompt, "text or messages on each side", "TRL"),
  Schema(
    ("instruction", "output"),
    read_instruction,
    "`instruction`, `input`, `output`, and `history` as pairs",
    "Alpaca, LLaMA-Factory, ms-swift",
    ("input", "history"),
  ),
  Schema(
    ("query", "response"),
    make_reader("query", "response"),
    "`query`, `response`, and `history` as pairs",
    "ms-swift",
    ("history",),
  ),
  Schema(
    ("prompt", "response"),
    make_reader("prompt", "response"),
    "`prompt` and `response`",
    "LLaMA-Factory's renamed columns",
    ("history",),
  ),
  Schema(
    ("question", "answer"),
    make_reader("question", "answer"),
    "`question` and `answer`",
    "visual question answering sets",
    ("history",),
  ),
)


class Content(NamedTuple):
  """What is learned from a record.

  Attributes:
    turns: of the conversation, a system text first.
    pictures: the images, in the order of their marks.
    notes: what was read otherwise than it stands, `PLACED` or `REPEATED`.
    unread: names of the fields that hold something and are not read; those of a
      turn as "field.name".
    used: names of the record's fields that are.
  """

  turns: tuple[Turn, ...]
  pictures: tuple[Picture, ...]
  notes: tuple[str, ...] = ()
  unread: tuple[str, ...] = ()
  used: tuple[str, ...] = ()

  @property
  def conversations(self) -> list[dict[str, Any]]:
    """The turns as LLaVA has them; `"loss": false` where none may be learned."""
    return [
      {"from": turn.speaker, "value": turn.text}
      if turn.learned or turn.speaker != GPT
      else {"from": turn.speaker, "value": turn.text, "loss": False}
      for turn in self.turns
    ]


def read_content(record: Record) -> Content:
  """A record's conversation and images.

  Raises:
    RowError: it has no known form, its marks and images differ in number, or the
      record could not be read.
  """
  content, blanks = _read_as_is(record)
  turns, pictures = content.turns, content.pictures
  _refuse_no_question(turns)
  _refuse_other_media(turns, pictures)
  if not any(MARK in turn.text for turn in turns):
    # An image without bytes and name that nobody asks for is how some writers say none.
    pictures = tuple(p for p in pictures if p.name or p.data != b"")
  marked, note = place_marks(turns, len(pictures), blanks)
  notes = () if note is None else (note,)
  return content._replace(turns=tuple(marked), pictures=pictures, notes=notes)


def read_as_is(record: Record) -> Content:
  """A record's conversation and images, whether or not its marks fit its images.

  Raises:
    RowError: it has no known form, or the record could not be read.
  """
  return _read_as_is(record)[0]


def _read_as_is(record: Record) -> tuple[Content, int]:
  """What a record holds, and how many images it leaves empty."""
  value = record.value
  if value is None:
    assert record.reason is not None, "a record without a value has a reason"
    raise RowError(record.reason, record.detail)
  if not _OTHER_MEDIA.isdisjoint(value):
    for kind in sorted(_OTHER_MEDIA):
      if value.get(kind):
        raise RowError("other media", f"the record names {kind}")
  images, image_fields = read_fields(value)
  if record.reason is not None:
    raise RowError(record.reason, record.detail)
  schema = _find_schema(value)
  named: list[Picture] = []
  turns = schema.read(value, named)
  if not images.pictures and not named:
    turns = take_tags(turns, named)
  # What lies beside the record, as in a tar, goes before what the record names.
  pictures = record.pictures or images.pictures or tuple(named)
  turns, system_field = _put_system_first(value, turns)
  used = (*schema.fields, *schema.more, *image_fields, *system_field, *LABELS)
  unread = _list_unread(value, turns, used, schema.fields[0])
  content = Content(tuple(turns), pictures, (), unread, used)
  return content, images.blanks


def read_pictures(record: Record) -> tuple[Picture, ...]:
  """A record's images, also where its conversation cannot be used.

  Raises:
    RowError: what should name an image does not, or the record could not be read.
  """
  if record.value is None:
    assert record.reason is not None, "a record without a value has a reason"
    raise RowError(record.reason, record.detail)
  if pictures := record.pictures or read_fields(record.value)[0].pictures:
    return pictures
  try:
    return read_content(record).pictures
  except RowError:
    return ()


def _find_schema(value: Mapping[str, Any]) -> Schema:
  if not is_preference(value):
    for schema in SCHEMAS:
      if all(value.get(field) is not None for field in schema.fields):
        return schema
  listed = tuple(dict.fromkeys(schema.fields[0] for schema in SCHEMAS))
  raise RowError("malformed", name_form(value, listed))


def _put_system_first(
  value: Mapping[str, Any], turns: list[Turn]
) -> tuple[list[Turn], tuple[str, ...]]:
  """The turns with the system text of the record's own field, where it has one."""
  if turns and turns[0].speaker == SYSTEM:
    return turns, ()
  for field in _SYSTEMS:
    text = value.get(field)
    if isinstance(text, str) and text.strip():
      return [Turn(SYSTEM, text), *turns], (field,)
  return turns, ()


def _refuse_no_question(turns: Sequence[Turn]) -> None:
  speakers = {turn.speaker for turn in turns}
  if GPT in speakers and HUMAN not in speakers:
    raise RowError(
      "malformed", "it looks like pre-training text: an answer without a question"
    )


def _refuse_other_media(turns: Sequence[Turn], pictures: tuple[Picture, ...]) -> None:
  """Refuses a question that opens with a video that the record does not bring."""
  for turn in turns:
    text = turn.text.lstrip()
    if turn.speaker == HUMAN and not pictures and text.startswith(_MEDIA_MARKS):
      raise RowError("other media", f"a question opens with {text[:7]}")


def _list_unread(
  value: Mapping[str, Any], turns: list[Turn], used: tuple[str, ...], field: str
) -> tuple[str, ...]:
  found = [name for name in value if name not in used and _is_there(value[name])]
  if not found and not any(turn.extra for turn in turns):
    return ()
  for turn in turns:
    if turn.extra:
      found += [f"{field}.{k}" for k, v in turn.extra.items() if _is_there(v)]
  return tuple(dict.fromkeys(map(str, found)))


def _is_there(value: Any) -> bool:
  """Whether a field holds anything."""
  return value is not None and value != "" and value != [] and value != {}
