"""Reads records of all published schemas as one conversation with its images.

`SCHEMAS` lists the schemas. A new one is a line there, with a function of its own if
no existing reader fits. The content that is read does not depend on the schema.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.data.record_schemas.content_parts import name_medium
from mllm_selector_jax.data.record_schemas.grounding import (
  FIELD,
  Grounding,
  read_grounding,
)
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
  make_instruction_reader,
  make_reader,
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
  "Grounding", "Schema", "Turn", "is_image_field", "read_as_is", "read_content",
  "read_pictures",
]  # fmt: skip

_OTHER_MEDIA = frozenset(("video", "videos", "audio", "audios"))
_MEDIA_MARKS = ("<video>", "<audio>")
_SYSTEMS = ("system", "system_prompt")
LABELS = ("id", "source", "data_source")


class Schema(NamedTuple):
  """One schema of records.

  Attributes:
    fields: the fields that a record must have. A record is read by the first schema
      whose fields it all has.
    read: returns the turns of a record, and appends the images among them to its
      second argument.
    form: a description of the schema, for the documentation.
    source: the data sets and tools that use the schema.
    more: optional fields that are read too.
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
    make_instruction_reader("instruction", "input", "output"),
    "`instruction`, `input`, `output`, and `history` as pairs",
    "Alpaca, LLaMA-Factory, ms-swift",
    ("input", "history"),
  ),
  Schema(
    ("prompt", "query", "response"),
    make_instruction_reader("prompt", "query", "response"),
    "`prompt`, its input `query`, and `response`",
    "LLaMA-Factory's renamed columns",
    ("history",),
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
    ("input", "output"),
    make_reader("input", "output"),
    "`input` and `output`, without an instruction",
    "ms-swift, LLaMA-Factory",
    ("history",),
  ),
  Schema(
    ("problem", "solution"),
    make_reader("problem", "solution"),
    "`problem` and `solution`",
    "ms-swift, and sets of reasoning",
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
  """The content of a record.

  Attributes:
    turns: the turns of the conversation; a system text is the first.
    pictures: the images, in the order of their marks.
    notes: how the record was changed when it was read: `PLACED` or `REPEATED`.
    unread: names of non-empty fields that are not read; fields of a turn are named
      "field.name".
    used: names of the fields that are read.
    grounding: the boxes and names that the turns have marks for; None for none.
  """

  turns: tuple[Turn, ...]
  pictures: tuple[Picture, ...]
  notes: tuple[str, ...] = ()
  unread: tuple[str, ...] = ()
  used: tuple[str, ...] = ()
  grounding: Grounding | None = None

  @property
  def conversations(self) -> list[dict[str, Any]]:
    """The turns in LLaVA's format, with `"loss": false` on answers not to learn."""
    return [
      {"from": turn.speaker, "value": turn.text}
      if turn.learned or turn.speaker != GPT
      else {"from": turn.speaker, "value": turn.text, "loss": False}
      for turn in self.turns
    ]


def read_content(record: Record) -> Content:
  """Reads a record's conversation and images, with one mark for each image.

  Raises:
    RowError: the record has no known schema or could not be read, or its marks
      differ in number from its images or boxes.
  """
  content, blanks = _read_as_is(record)
  turns, pictures = content.turns, content.pictures
  _refuse_no_question(turns)
  _refuse_other_media(turns, pictures)
  if not any(MARK in turn.text for turn in turns):
    # Some writers store an empty image in rows that have none.
    pictures = tuple(p for p in pictures if p.name or p.data != b"")
  marked, note = place_marks(turns, len(pictures), blanks)
  notes = () if note is None else (note,)
  return content._replace(turns=tuple(marked), pictures=pictures, notes=notes)


def read_as_is(record: Record) -> Content:
  """Reads a record's conversation and images, without checking its marks.

  Raises:
    RowError: the record has no known schema or could not be read.
  """
  return _read_as_is(record)[0]


def _read_as_is(record: Record) -> tuple[Content, int]:
  """Returns a record's content, and the number of its image fields that are empty."""
  value = record.value
  if value is None:
    assert record.reason is not None, "a record without a value has a reason"
    raise RowError(record.reason, record.detail)
  if not _OTHER_MEDIA.isdisjoint(value):
    for kind in sorted(_OTHER_MEDIA):
      if value.get(kind):
        raise RowError(name_medium(kind), f"the record names {kind}")
  images, image_fields = read_fields(value)
  if record.reason is not None:
    raise RowError(record.reason, record.detail)
  schema = _find_schema(value)
  named: list[Picture] = []
  turns = schema.read(value, named)
  if not images.pictures and not named:
    turns = take_tags(turns, named)
  # Images beside the record, as in a tar, take precedence over those that it names.
  pictures = record.pictures or images.pictures or tuple(named)
  turns, system_field = _put_system_first(value, turns)
  used = (*schema.fields, *schema.more, *image_fields, *system_field, *LABELS)
  unread = _list_unread(value, turns, used, schema.fields[0])
  content = Content(tuple(turns), pictures, (), unread, used)
  grounding = read_grounding(value, turns, len(pictures))
  if grounding is not None:
    # The field is not among those used, so that every export has it.
    unread = tuple(field for field in unread if field != FIELD)
    content = content._replace(grounding=grounding, unread=unread)
  return content, images.blanks


def read_pictures(record: Record) -> tuple[Picture, ...]:
  """Reads a record's images, even if its conversation cannot be used.

  Raises:
    RowError: an image field is invalid, or the record could not be read.
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
  main_fields = tuple(dict.fromkeys(schema.fields[0] for schema in SCHEMAS))
  raise RowError("malformed", name_form(value, main_fields))


def _put_system_first(
  value: Mapping[str, Any], turns: list[Turn]
) -> tuple[list[Turn], tuple[str, ...]]:
  """Prepends the system text if the record has it in a field of its own.

  Returns:
    The turns, and the name of that field as a tuple of one; an empty tuple if none
    was used.
  """
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
  """Refuses questions about a video or audio, in records without any image.

  Raises:
    RowError: a question opens with the mark of a video or audio.
  """
  for turn in turns:
    text = turn.text.lstrip()
    if turn.speaker == HUMAN and not pictures and text.startswith(_MEDIA_MARKS):
      raise RowError(name_medium(text), f"a question opens with {text[:7]}")


def _list_unread(
  value: Mapping[str, Any], turns: list[Turn], used: tuple[str, ...], field: str
) -> tuple[str, ...]:
  """Lists the non-empty fields that are not read; see `Content.unread`."""
  unread = [name for name in value if name not in used and _is_filled(value[name])]
  if not unread and not any(turn.extra for turn in turns):
    return ()
  for turn in turns:
    if turn.extra:
      unread += [f"{field}.{k}" for k, v in turn.extra.items() if _is_filled(v)]
  return tuple(dict.fromkeys(map(str, unread)))


def _is_filled(value: Any) -> bool:
  """Returns whether a field holds anything."""
  return value is not None and value != "" and value != [] and value != {}
