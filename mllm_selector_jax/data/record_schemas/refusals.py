"""What a record that is no conversation looks like, said by its name."""

from collections.abc import Mapping
from typing import Any

_SHOWN = 8  # fields of a record that is not known

# Fields that a record of the form has, and what it is called.
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
  """Whether a record ranks answers, so that none of them is simply to be learned."""
  if _SIGNS.isdisjoint(value):
    return False
  return any(_has(value, fields) for fields in _PREFERENCES)


def name_form(value: Mapping[str, Any], read: tuple[str, ...]) -> str:
  """Says what a record looks like.

  Args:
    value: the record.
    read: the fields of which it would need one.
  """
  for fields, name in _FORMS:
    if _has(value, fields):
      prompt = [field for field in ("prompt", "image", "images") if value.get(field)]
      shown = dict.fromkeys([*prompt, *fields])
      return f"it looks like {name}: {', '.join(shown)}"
  there = ", ".join(map(str, list(value)[:_SHOWN])) or "no field"
  return f"the record has none of {', '.join(read)}; it has {there}"


def _has(value: Mapping[str, Any], fields: tuple[str, ...]) -> bool:
  return all(value.get(field) is not None for field in fields)
