"""The shapes that a record has in published pools, read as LLaVA's.

- LLaVA: `conversations` of `{"from": "human" | "gpt", "value"}`, `image`.
- Messages (ShareGPT, LLaMA-Factory, ms-swift, TRL): `messages` or `conversations` of
  `{"role": "user" | "assistant", "content"}`, `images`; content is text, or a list
  of parts of text and image.
- Texts (Cauldron, FineVision): `texts` of `{"user", "assistant"}`, `images`, and no
  marks of images in the text.

The same conversation and images give the same content in each.
"""

from typing import Any, NamedTuple

from mllm_selector_jax.types import Picture, Record, RowError

MARK = "<image>"
ROLES = {"user": "human", "human": "human", "assistant": "gpt", "gpt": "gpt"}
_OTHER_MEDIA = ("video", "videos", "audio", "audios")


class Content(NamedTuple):
  """What is learned from a record.

  Attributes:
    conversations: turns as LLaVA has them; not yet checked.
    pictures: the images, in order.
  """

  conversations: Any
  pictures: tuple[Picture, ...]


def read_content(record: Record) -> Content:
  """A record's conversation and images.

  Raises:
    RowError: it has no known form; or the record could not be read.
  """
  pictures = read_pictures(record)
  if record.reason is not None:
    raise RowError(record.reason, record.detail)
  value = record.value
  if value.get("conversations") is None and value.get("messages") is None:
    if value.get("texts") is None:
      raise RowError(
        "malformed", 'the record has no "conversations", "messages" or "texts"'
      )
    return Content(_read_texts(value["texts"], len(pictures)), pictures)
  turns = value.get("conversations")
  if turns is None:
    turns = value["messages"]
  if not isinstance(turns, list):
    raise RowError("malformed", "conversations is not a list")
  if not any(isinstance(turn, dict) and "role" in turn for turn in turns):
    return Content(turns, pictures)
  conversations, named = _read_messages(turns)
  return Content(conversations, pictures or named)


def read_pictures(record: Record) -> tuple[Picture, ...]:
  """A record's images, as far as they do not stand among its messages' parts.

  Raises:
    RowError: what should name an image does not, or the record could not be read.
  """
  if record.value is None:
    raise RowError(record.reason, record.detail)
  for kind in _OTHER_MEDIA:
    if record.value.get(kind):
      raise RowError("unsupported image", f"the record names {kind}")
  if record.pictures is not None:
    return record.pictures
  names: list[Any] = []
  for field in ("image", "images"):
    found = record.value.get(field)
    names += found if isinstance(found, list) else [found]
    if any(name is not None for name in names):
      break
  return tuple(_name_picture(name) for name in names if name is not None)


def _name_picture(name: Any) -> Picture:
  if not isinstance(name, str):
    raise RowError("malformed", f"image is {type(name).__name__}, not a path")
  return Picture(name)


def _read_texts(texts: Any, pictures: int) -> list[dict[str, str]]:
  if not isinstance(texts, list):
    raise RowError("malformed", "texts is not a list")
  turns = []
  for place, text in enumerate(texts):
    if not isinstance(text, dict):
      raise RowError("malformed", f"text {place} is not an object")
    for role, speaker in (("user", "human"), ("assistant", "gpt")):
      if not isinstance(text.get(role), str):
        raise RowError("malformed", f"text {place} has no text in {role}")
      turns.append({"from": speaker, "value": text[role]})
  if turns and not any(MARK in turn["value"] for turn in turns):
    turns[0]["value"] = f"{MARK}\n" * pictures + turns[0]["value"]
  return turns


def _read_messages(
  messages: list[Any],
) -> tuple[list[dict[str, Any]], tuple[Picture, ...]]:
  turns, named = [], []
  for place, message in enumerate(messages):
    if not isinstance(message, dict):
      raise RowError("malformed", f"turn {place} is not an object")
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list):
      content = _join_parts(content, place, named)
    speaker = ROLES.get(role, role) if isinstance(role, str) else role
    turns.append({"from": speaker, "value": content})
  return turns, tuple(named)


def _join_parts(parts: list[Any], place: int, named: list[Picture]) -> str:
  """Text of a message's parts; an image's mark stands on a line of its own."""
  pieces = []
  for part in parts:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image":
      pieces.append(MARK)
      if part.get("image") is not None:
        named.append(_name_picture(part["image"]))
    elif kind == "text" and isinstance(part.get("text"), str):
      pieces.append(part["text"])
    else:
      found = repr(kind)[:40] if kind else type(part).__name__
      raise RowError("malformed", f"turn {place} has a part that is {found}")
  return "\n".join(pieces)
