"""What a record is known by: the same in each form, another for other content."""

import pytest

from mllm_selector_jax.data.pool.likeness import read_likeness
from mllm_selector_jax.types import Picture, Record
from tests.data import formats_on_the_spot as forms
from tests.data.pools_on_the_spot import make_record, talk

RECORD = make_record(3, "a/1.png")
RECORD["conversations"] += talk("and é?", "two\nlines")


def read(value, pictures=None):
  return read_likeness(Record(0, 0, value, pictures=pictures))


@pytest.mark.parametrize("convert", [forms.as_messages, forms.as_parts, forms.as_texts])
def test_every_form_has_the_same_likeness(convert):
  assert read(convert(RECORD)) == read(RECORD)


def test_what_formats_change_does_not_count():
  wanted = read(RECORD)
  assert wanted.image == "a/1.png"
  assert read({**RECORD, "id": "other", "source": "x"}) == wanted
  # A tar's record names its image otherwise than the member is called.
  assert read(RECORD, (Picture("b.png", b""),)) == wanted._replace(image="b.png")
  last = {"from": "human", "value": "a question without an answer"}
  whole = {**RECORD, "conversations": [*RECORD["conversations"], last]}
  assert read(whole) == wanted


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_another_turn_is_another_record(place):
  turns = [dict(turn) for turn in RECORD["conversations"]]
  turns[place]["value"] += "."
  assert read({**RECORD, "conversations": turns}).text != read(RECORD).text
  assert read({**RECORD, "image": "a/2.png"}) != read(RECORD)


def test_without_a_conversation_there_is_none():
  assert read({"id": "a"}) is None
  assert read({"id": "a", "conversations": "text"}) is None
  assert read({"id": "a", "row": 3, "hash": "ff"}) is None
