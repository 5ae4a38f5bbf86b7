"""Boxes and names that records state beside their text: read, refused, hashed."""

import json
import math

import hypothesis
import pytest
from hypothesis import strategies as st

from mllm_selector_jax.data.pool import likeness, row_hash
from mllm_selector_jax.data.record_schemas.grounding import Box, Grounding
from mllm_selector_jax.types import Record, RowError
from tests.data.record_schemas.test_record_schemas import read, reason_of

ASKED = {"role": "user", "content": "<image>Find the <ref-object>."}
ANSWERED = {"role": "assistant", "content": "<bbox> and <bbox>"}
OBJECTS = {"ref": ["disc"], "bbox": [[1, 2, 3, 4], [5, 6.5]]}
GROUNDED = Grounding(("disc",), (Box((1, 2, 3, 4), None, 0), Box((5, 6.5), None, 0)))


def make(objects, asked=ASKED["content"], answered=ANSWERED["content"], images=1):
  return {
    "images": [f"{number}.png" for number in range(images)],
    "messages": [ASKED | {"content": asked}, ANSWERED | {"content": answered}],
    "objects": objects,
  }


# One list of objects, in every form in which it is published.
SAME = {
  "ms-swift": OBJECTS,
  "as text": json.dumps(OBJECTS),
  "all fields": OBJECTS | {"bbox_type": "real", "image_id": [0, 0]},
  "empty fields": OBJECTS | {"bbox_type": None, "image_id": []},
  "corners the other way": OBJECTS | {"bbox": [[3, 4, 1, 2], [5, 6.5]]},
}


@pytest.mark.parametrize("name", SAME)
def test_objects_are_read_in_every_form(name):
  content = read(make(SAME[name]))
  assert content.grounding == GROUNDED
  assert content.unread == () and "objects" not in content.used
  assert hash_of(content) == hash_of(read(make(OBJECTS)))


def test_objects_of_ms_swift_2_are_read():
  objects = [
    {"caption": "disc", "bbox": [0.1, 0.2, 0.3, 0.4], "bbox_type": "norm_1"},
    {"caption": "star", "bbox": [5, 6, 7, 8], "bbox_type": "norm_1000", "image": 1},
    {"caption": "sun", "bbox": [5, 6, 7, 8]},
  ]
  value = {
    "query": "<image><image>Find <bbox>, <bbox>, <bbox>.",
    "response": "<ref-object>, <ref-object>, <ref-object>",
    "images": ["0.png", "1.png"],
  }
  for stated in objects, json.dumps(objects):
    assert read({**value, "objects": stated}).grounding == Grounding(
      ("disc", "star", "sun"),
      (
        Box((0.1, 0.2, 0.3, 0.4), 1.0, 0),
        Box((5, 6, 7, 8), 1000.0, 1),
        Box((5, 6, 7, 8), None, 0),
      ),
    )


def test_only_what_the_text_has_marks_for_is_read():
  assert read(make(OBJECTS, "<image>Find it.")).grounding == GROUNDED._replace(names=())
  content = read(make(OBJECTS, answered="It is here."))
  assert content.grounding == Grounding(("disc",), ())
  for objects, texts in (
    (OBJECTS, ("<image>Find it.", "It is here.")),
    ([{"bbox": "anything"}], ("<image>Find it.", "It is here.")),
  ):
    content = read(make(objects, *texts))
    assert content.grounding is None and content.unread == ("objects",)
  for objects in None, {}, "", []:
    content = read(make(objects))
    assert content.grounding is None and content.unread == ()
    assert content.turns[1].text == ANSWERED["content"]


def hash_of(content, images=("x",)):
  return row_hash.hash_row(content.conversations, images, content.grounding)


def test_rows_of_other_objects_are_other_rows():
  others = [
    OBJECTS,
    OBJECTS | {"ref": ["star"]},
    OBJECTS | {"bbox": [[1, 2, 3, 5], [5, 6.5]]},
    OBJECTS | {"bbox": [[5, 6.5], [1, 2, 3, 4]]},
    OBJECTS | {"bbox_type": "norm1"},
    OBJECTS | {"image_id": [0, 1]},
  ]
  contents = [read(make(objects, f"<image>{ASKED['content']}", images=2))
              for objects in others]  # fmt: skip
  assert len({hash_of(content) for content in contents}) == len(others)
  found = {
    likeness.read_likeness(Record(0, 0, make(objects, "<image><ref-object>", images=2)))
    for objects in others
  }
  assert len(found) == len(others)


def test_hashes_of_rows_without_objects_are_as_before():
  content = read({"image": "a.png", "question": "<image>\nWhat?", "answer": "Teal."})
  assert hash_of(content, ["ab"]) == "227c7fd9e789d21ed027b538b3ddee6b"


@pytest.mark.parametrize(
  ("objects", "words"),
  [
    (OBJECTS | {"bbox": [[1, 2, 3, 4]]}, "2 <bbox> in the text, 1 in the record"),
    (OBJECTS | {"bbox": []}, "2 <bbox> in the text, 0 in"),
    (OBJECTS | {"ref": ["disc", "star"]}, "1 <ref-object> in the text, 2 in"),
    (OBJECTS | {"bbox": [[1, 2, 3], [5, 6]]}, "box 0 is [1, 2, 3], not 2 or 4"),
    (OBJECTS | {"bbox": [[1, 2, 3, 4], 7]}, "box 1 is 7, not 2 or 4 numbers"),
    (OBJECTS | {"bbox": [[1, "2"], [5, 6]]}, "box 0 holds '2', which is no number"),
    (OBJECTS | {"bbox": [[1, True], [5, 6]]}, "box 0 holds True"),
    (OBJECTS | {"bbox": [[1, None], [5, 6]]}, "box 0 holds None"),
    (OBJECTS | {"bbox": [[1, math.inf], [5, 6]]}, "box 0 holds inf"),
    (OBJECTS | {"bbox": "none"}, "objects.bbox is str, not a list"),
    (OBJECTS | {"bbox_type": "norm"}, "bbox_type is 'norm'; known are real, norm1"),
    (OBJECTS | {"bbox_type": ["real"]}, "2 boxes, but 1 of bbox_type"),
    (OBJECTS | {"image_id": [0]}, "2 boxes, but 1 of image_id"),
    (OBJECTS | {"image_id": [0, 1]}, "box 1 is of image 1, counted from 0, of 1"),
    (OBJECTS | {"image_id": [0, -1]}, "image_id of box 1 is -1"),
    (OBJECTS | {"ref": [5]}, "a name in objects is int, not text"),
    (OBJECTS | {"ref": ["a <image>"]}, "a name in objects holds <image>"),
    (OBJECTS | {"ref": ["a <bbox>"]}, "a name in objects holds <bbox>"),
    (OBJECTS | {"bbox": [[0, 0.5], [0, 0.25, 1, 1]]}, "between 0 and 1, and bbox_type"),
    ("[", "objects is text, and not JSON"),
    (5, "objects is int, not an object"),
    ("5", "objects is int, not an object"),
    ([5], "objects is list, not an object"),
  ],
)
def test_wrong_objects_are_named(objects, words):
  error = reason_of(make(objects))
  assert error.reason == "boxes" and words in error.detail


def test_boxes_need_an_image():
  error = reason_of(make(OBJECTS, "Find the <ref-object>.", images=0))
  assert error.reason == "boxes" and "no image" in error.detail
  names = read(make({"ref": ["disc"]}, "What is a <ref-object>?", "Round.", images=0))
  assert names.grounding == Grounding(("disc",), ())


NUMBER = st.one_of(
  st.integers(-5, 2000), st.floats(-5, 2000, allow_nan=False, width=32)
)
ANYTHING = st.recursive(
  st.one_of(st.none(), st.booleans(), NUMBER, st.text(max_size=4)),
  lambda inner: st.one_of(
    st.lists(inner, max_size=4),
    st.dictionaries(
      st.sampled_from(["ref", "bbox", "bbox_type", "image_id", "caption", "x"]), inner
    ),
  ),
  max_leaves=12,
)


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
@hypothesis.given(objects=ANYTHING)
def test_whatever_objects_are_they_are_read_or_refused_by_name(objects):
  try:
    content = read(make(objects))
  except RowError as error:
    assert error.reason == "boxes" and error.detail
  else:
    if content.grounding is not None:
      assert len(content.grounding.boxes) == 2


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(boxes=st.lists(st.tuples(*[NUMBER] * 4), min_size=2, max_size=2))
def test_the_order_of_the_corners_does_not_matter(boxes):
  hypothesis.assume(max(map(max, boxes)) > 1)
  forms = [
    [[x, y, right, lower] for x, y, right, lower in boxes],
    [[right, y, x, lower] for x, y, right, lower in boxes],
    [[right, lower, x, y] for x, y, right, lower in boxes],
  ]
  found = {read(make(OBJECTS | {"bbox": form})).grounding for form in forms}
  assert len(found) == 1
