"""A row's own system text and its masked answers, as tokens."""

import numpy as np
import pytest

from mllm_selector_jax.data.packing.prefixes import list_prefixes
from mllm_selector_jax.data.tokens.conversation import TEMPLATES, make_encoder
from mllm_selector_jax.types import RowError
from tests.data.test_conversation import CONVERSATIONS, oracle_text, oracle_tokens, talk
from tests.data.test_templates import BLANK, PATCHES, SOURCES, messages, oracle
from tests.fixed_images import ONE_IMAGE, fixed_images, sizes_of
from tests.llama_like import KINDS, make_tokenizer

OWN = "Antworte  auf Deutsch: </s> é\n"
SYSTEM = {"from": "system", "value": OWN}


def make(name, kind="qwen", source=None, row_system=True, system=None):
  tokenizer = make_tokenizer(kind, begins=False)
  tokenizer.chat_template = source
  return make_encoder(
    name, tokenizer, fixed_images(3, PATCHES), 10_000, system, row_system
  )


def encode(encoder, values, *before):
  return encoder.encode([*before, *talk(*values)], sizes_of(values))


def assert_same(one, other):
  for field in ("tokens", "supervised", "turns"):
    np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("name", ["vicuna_v1", "chatml", "llama-2"])
@pytest.mark.parametrize("kind", [*KINDS, "qwen"])
def test_it_stands_where_the_templates_would(name, kind):
  for values in CONVERSATIONS.values():
    found = encode(make(name, kind), values, SYSTEM)
    # The template with this text as its own, and a pool that has none, is the oracle.
    assert_same(found, encode(make(name, kind, system=OWN), values))
    assert not found.truncated


@pytest.mark.parametrize("source", ["chatml", "listed"])
def test_a_chat_template_writes_it_as_transformers_does(source):
  for values in CONVERSATIONS.values():
    encoder = make("chat", source=SOURCES[source])
    found = encode(encoder, values, SYSTEM | {"value": "Be brief."})
    chat = messages(values, "Be brief.", listed=source == "listed")
    ids, mask = oracle(encoder.tokenizer, SOURCES[source], chat)
    assert found.tokens.tolist() == ids.tolist()
    np.testing.assert_array_equal(found.supervised, mask)


@pytest.mark.parametrize(
  ("name", "source", "takes"),
  [
    ("vicuna_v1", None, True), ("chatml", None, True), ("llama-2", None, True),
    ("plain", None, False), ("chat", SOURCES["chatml"], True), ("chat", BLANK, False),
  ],
)  # fmt: skip
def test_a_template_says_whether_it_has_the_place(name, source, takes):
  encoder = make(name, source=source)
  assert encoder.takes_system == takes
  if not takes:
    values = ("<image>\nwhat?", "red")
    assert_same(encode(encoder, values, SYSTEM), encode(encoder, values))


def test_it_can_be_replaced_as_llava_does():
  encoder = make("vicuna_v1", row_system=False)
  assert not encoder.takes_system
  values = CONVERSATIONS["three turns"]
  found = encode(encoder, values, SYSTEM)
  wanted = oracle_tokens(encoder.tokenizer, oracle_text(values))
  assert found.tokens.tolist()[-len(wanted) + 1 :] == wanted[1:]


def test_it_goes_before_a_text_that_the_config_takes_out():
  values = ("what?", "red")
  found = encode(make("vicuna_v1", system=""), values, SYSTEM)
  assert_same(found, encode(make("vicuna_v1", system=OWN), values))


def test_rows_share_a_trunk_with_those_of_the_same_system_text():
  encoder = make("vicuna_v1")
  values = CONVERSATIONS["one turn"]

  def find_prefixes(*system):
    return list_prefixes(encode(encoder, values, *system), ["pixels"])

  assert find_prefixes() == find_prefixes() != find_prefixes(SYSTEM)
  assert find_prefixes(SYSTEM) == find_prefixes(SYSTEM)
  blank = SYSTEM | {"value": " \n"}
  assert_same(encode(encoder, values, blank), encode(encoder, values))


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"plain", "chat"}))
def test_masked_answers_are_read_and_not_learned(name):
  encoder = make(name)
  turns = talk("<image>\nwhat?", "red", "and?", "blue", "why?", "no")
  whole = encoder.encode(turns, ONE_IMAGE)
  turns[3] = turns[3] | {"loss": False}
  found = encoder.encode(turns, ONE_IMAGE)
  np.testing.assert_array_equal(found.tokens, whole.tokens)
  wanted = np.where(whole.turns == 1, -1, whole.turns)
  np.testing.assert_array_equal(found.turns, wanted)
  np.testing.assert_array_equal(found.supervised, wanted >= 0)
  every = [turn | {"loss": False} for turn in turns]
  with pytest.raises(RowError, match="masks every answer"):
    encoder.encode(every, ONE_IMAGE)


def test_a_mark_in_an_answer_is_literal_text():
  encoder = make("vicuna_v1")
  found = encoder.encode(talk("How?", "By the <image> tag."))
  assert 3 not in found.tokens
  assert "<image>" in encoder.tokenizer.decode(found.tokens.tolist())
