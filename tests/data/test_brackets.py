"""The end of a JSON value, found without parsing it."""

import json

import hypothesis
from hypothesis import strategies as st

from mllm_selector_jax.data.json_text.brackets import Brackets
from tests.data.test_records import JSON


@hypothesis.given(value=JSON, cuts=st.lists(st.integers(0, 60), max_size=4))
@hypothesis.settings(deadline=None)
def test_brackets_find_the_end_over_any_pieces(value, cuts):
  text = json.dumps(value)
  whole = text + "]"
  marks = sorted({cut for cut in cuts if 0 < cut < len(whole)})
  pieces = [whole[a:b] for a, b in zip([0, *marks], [*marks, len(whole)], strict=True)]
  brackets, before = Brackets(text[0]), 0
  for piece in pieces:
    end = brackets.find_end(piece, 0)
    if end is not None:
      assert before + end == len(text)
      return
    before += len(piece)
  raise AssertionError("no end found")


def test_what_json_refuses_has_an_end_too():
  for text in (
    "{'a': 1}",
    '{"a" 1}',
    '[NaN, "]\\""]',
    "nan",
    "[" * 20_000 + "]" * 20_000,
  ):
    assert Brackets(text[0]).find_end(text + ", {", 0) == len(text)


def test_what_never_ends():
  for text in ('{"a": 1', '{"a": "}', '"a\\"', "[[]"):
    assert Brackets(text[0]).find_end(text, 0) is None
