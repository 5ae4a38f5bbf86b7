"""What a record's image fields may hold, and what is no image."""

import base64

import pytest

from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.types import MARK, Picture, Record, RowError

QUESTION, ANSWER = "Which colour?", "Teal."
PAIR = {"question": f"{MARK}{QUESTION}", "answer": ANSWER}
DATA = b"\x89PNG\r\n\x1a\n" + bytes(range(90))
TEXT = base64.b64encode(DATA).decode()


def read(value: dict, **extra) -> record_schemas.Content:
  return record_schemas.read_content(Record(0, 0, value, **extra))


def reason_of(value: dict) -> RowError:
  with pytest.raises(RowError) as caught:
    read(value)
  return caught.value


@pytest.mark.parametrize(
  "value",
  [
    "a.png", ["a.png"], {"path": "a.png"}, {"bytes": None, "path": "a.png"},
    {"url": "a.png"}, [{"path": "a.png"}], '["a.png"]', {"image_url": {"url": "a.png"}},
  ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["image", "images", "img", "jpg", "image_0"])
def test_a_path_in_every_field_and_form(field, value):
  assert read({field: value, **PAIR}).pictures == (Picture("a.png"),)


@pytest.mark.parametrize(
  "value",
  [
    DATA, {"bytes": DATA}, {"bytes": TEXT}, TEXT, f"data:image/png;base64,{TEXT}",
    f"data:;base64,{TEXT}", [f"DATA:image/png;base64,{TEXT}"], {"url": TEXT},
    f"{TEXT[:76]}\n{TEXT[76:]}",
  ],
)  # fmt: skip
def test_bytes_as_such_in_base64_and_in_data_urls(value):
  assert read({"image": value, **PAIR}).pictures == (Picture(None, DATA),)


def test_bytes_beside_a_path_go_first():
  found = read({"image": {"bytes": DATA, "path": "a.png"}, **PAIR})
  assert found.pictures == (Picture("a.png", DATA),)


@pytest.mark.parametrize(
  ("value", "reason"),
  [
    ("data:image/png;base64,???", "unreadable image"),
    ("data:text/plain,hello", "unreadable image"),
    (7, "malformed"),
    ([{"width": 3}], "malformed"),
    ({"bytes": 3, "path": "a.png"}, "malformed"),
  ],
)
def test_what_is_no_image(value, reason):
  assert reason_of({"image": value, **PAIR}).reason == reason


@pytest.mark.parametrize("name", ["/9j/a.png", "iVBORw0KGgo.png", "a:b.png", "[1].png"])
def test_what_only_looks_like_base64_is_a_name(name):
  assert read({"image": name, **PAIR}).pictures == (Picture(name),)


BLANKS = ["", [], [""], None, {}, {"bytes": None, "path": None}, float("nan"), "nan"]


@pytest.mark.parametrize("value", BLANKS[:4] + BLANKS[5:])
def test_an_image_that_is_not_there_makes_a_row_of_text(value):
  found = read({"image": value, "question": QUESTION, "answer": ANSWER})
  assert found.pictures == () and found.notes == ()
  error = reason_of({"image": value, **PAIR})
  assert error.reason in ("missing image", "image marks")


@pytest.mark.parametrize(
  "image",
  [
    {"type": "image", "base64": TEXT},
    {"type": "image", "image": f"data:image/png;base64,{TEXT}"},
    {"type": "image", "source": {"type": "base64", "media_type": "x", "data": TEXT}},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{TEXT}"}},
  ],
)
def test_a_part_may_hold_its_image(image):
  asked = {"role": "user", "content": [image, {"type": "text", "text": QUESTION}]}
  content = read({"messages": [asked, {"role": "assistant", "content": ANSWER}]})
  assert content.pictures == (Picture(None, DATA),)
  assert content.turns[0].text == f"{MARK}\n{QUESTION}"
