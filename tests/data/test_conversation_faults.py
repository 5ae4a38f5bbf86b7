"""Conversations that are odd, unusable or too long."""

import time

import numpy as np
import pytest

from mllm_selector_jax.types import RowError
from tests.data.test_conversation import (
  make_encoder,
  oracle_text,
  oracle_tokens,
  talk,
)
from tests.fixed_images import ONE_IMAGE
from tests.tokenizers_on_the_spot import KINDS


def test_leading_turns_before_the_first_human_are_dropped():
  encoder = make_encoder()
  wanted = encoder.encode(talk("what?", "red"))
  extra = [{"from": "gpt", "value": "hello"}, {"from": "gpt", "value": "again"}]
  given = encoder.encode(extra + talk("what?", "red"))
  np.testing.assert_array_equal(given.tokens, wanted.tokens)


def test_a_last_question_without_answer_is_dropped():
  encoder = make_encoder()
  wanted = encoder.encode(talk("what?", "red"))
  given = encoder.encode(talk("what?", "red", "and?"))
  np.testing.assert_array_equal(given.tokens, wanted.tokens)


def test_an_empty_answer_is_not_learned():
  encoder = make_encoder()
  sample = encoder.encode(talk("what?", " ", "and?", "red"))
  assert set(sample.turns.tolist()) == {-1, 1}


@pytest.mark.parametrize(
  ("conversations", "has_image", "reason"),
  [
    (None, False, "malformed"),
    ({}, False, "malformed"),
    ("text", False, "malformed"),
    (["text"], False, "malformed"),
    ([{"from": "human"}], False, "malformed"),
    ([{"from": "human", "value": 3}], False, "malformed"),
    (talk("a", "b") + talk("c", "d")[1:], False, "malformed"),
    (talk("a")[:1] + talk("b", "c"), False, "malformed"),
    (talk("a") + [{"from": "robot", "value": "b"}], False, "malformed"),
    (talk("a") + [{"from": ["x"], "value": "b"}], False, "malformed"),
    ([], False, "no supervised token"),
    (talk("a"), False, "no supervised token"),
    (talk("a", ""), False, "no supervised token"),
    (talk("a", " \n"), False, "no supervised token"),
    (talk("a", "b"), True, "image marks"),
    (talk("<image>a", "b"), False, "image marks"),
    (talk("a", "<image> b"), True, "image marks"),
    (talk("a", "b", "<image>"), True, "image marks"),
    (talk("<image><image>a", "b"), True, "image marks"),
    (talk("<image>a", "b", "<image>c", "d"), True, "image marks"),
  ],
)
def test_rows_that_cannot_be_used(conversations, has_image, reason):
  encoder = make_encoder()
  with pytest.raises(RowError) as caught:
    encoder.encode(conversations, has_image * ONE_IMAGE)
  assert caught.value.reason == reason
  assert caught.value.detail


def test_a_long_row_is_cut_after_the_expansion():
  whole = make_encoder().encode(
    talk("<image>\nwhat?", "red blue green yellow"), ONE_IMAGE
  )
  length = len(whole.tokens)
  for cut in (1, 3):
    sample = make_encoder(max_length=length - cut).encode(
      talk("<image>\nwhat?", "red blue green yellow"), ONE_IMAGE
    )
    assert sample.truncated
    np.testing.assert_array_equal(sample.tokens, whole.tokens[:-cut])
    np.testing.assert_array_equal(sample.turns, whole.turns[:-cut])
  exact = make_encoder(max_length=length)
  assert not exact.encode(
    talk("<image>\nwhat?", "red blue green yellow"), ONE_IMAGE
  ).truncated


def test_cut_before_any_answer_and_before_the_image_ends():
  row = talk("<image>\nwhat?", "red")
  whole = make_encoder().encode(row, ONE_IMAGE)
  image_end = np.flatnonzero(whole.tokens == 4)[-1] + 1
  with pytest.raises(RowError, match="no supervised token"):
    make_encoder(max_length=int(image_end)).encode(row, ONE_IMAGE)
  with pytest.raises(RowError, match="too long"):
    make_encoder(max_length=int(image_end) - 1).encode(row, ONE_IMAGE)


@pytest.mark.parametrize("text", ["red blue ", "x", "é", "a\n"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_enormous_text_is_cut_as_any_other(kind, text):
  encoder = make_encoder(kind, max_length=200)
  values = ("what?", text * 30_000, "and?", "no")
  sample = encoder.encode(talk(*values))
  assert sample.truncated
  wanted = oracle_tokens(encoder.tokenizer, oracle_text(values))
  assert sample.tokens.tolist() == wanted[:200]
  start = len(encoder.prompt("what?").tokens)
  np.testing.assert_array_equal(np.flatnonzero(sample.supervised), range(start, 200))


@pytest.mark.parametrize("kind", KINDS)
def test_an_enormous_text_does_not_take_long(kind):
  encoder = make_encoder(kind)
  start = time.process_time()
  sample = encoder.encode(talk("what?", "red blue " * 1_500_000))
  assert len(sample.tokens) == 10_000
  with pytest.raises(RowError, match="no supervised token"):
    encoder.encode(talk("red blue " * 1_500_000, "no"))
  with pytest.raises(RowError, match="too long"):
    encoder.encode(talk("a", "red " * 1_500_000, "<image>", "no"), ONE_IMAGE)
  assert time.process_time() - start < 10
