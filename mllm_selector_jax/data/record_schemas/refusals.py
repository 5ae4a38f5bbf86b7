"""Recognises records that are not conversations, and names what they look like."""

from collections.abc import Mapping
from typing import Any

_SHOWN = 8  # number of fields that are shown of a record of no known schema

# The fields by which a kind of record is recognised, and its name.
_FORMS = (
  (("chosen", "rejected"), "DPO pairs"),
  (("completion", "label"), "KTO feedback"),
  (("kto_tag",), "KTO feedback"),
  (("annotation", "root"), "an entry of InternVL's meta file"),
  (("caption", "url"), "image-caption pairs as img2dataset writes them"),
  (("caption",), "image-caption pairs"),
  (("question",), "questions without an answer"),
  (("query",), "questions without an answer"),
  (("prompt",), "prompts without an answer"),
  (("response",), "answers without a question"),
  (("text",), "plain text for language modelling"),
)
_PREFERENCES = tuple(fields for fields, _ in _FORMS[:3])
_SIGNS = frozenset(fields[-1] for fields in _PREFERENCES)


def is_preference(value: Mapping[str, Any]) -> bool:
  """Returns whether a record holds preferences, which are not plain supervision."""
  if _SIGNS.isdisjoint(value):
    return False
  return any(_has(value, fields) for fields in _PREFERENCES)


def name_form(value: Mapping[str, Any], main_fields: tuple[str, ...]) -> str:
  """Describes a record that is not read as a conversation.

  Args:
    value: the record.
    main_fields: the fields of which a conversation has at least one.
  """
  for fields, name in _FORMS:
    if _has(value, fields):
      prompt = [field for field in ("prompt", "image", "images") if value.get(field)]
      shown = dict.fromkeys([*prompt, *fields])
      return f"it looks like {name}: {', '.join(shown)}"
  present = ", ".join(map(str, list(value)[:_SHOWN])) or "no field"
  return f"the record has none of {', '.join(main_fields)}; it has {present}"


def _has(value: Mapping[str, Any], fields: tuple[str, ...]) -> bool:
  return all(value.get(field) is not None for field in fields)
