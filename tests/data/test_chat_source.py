"""The chat template of an export: transformers' tokens and mask beside ours."""

import functools

import hypothesis
import pytest
from hypothesis import strategies as st

from mllm_selector_jax.data.tokens.conversation import TEMPLATES, make_encoder
from mllm_selector_jax.data.tokens.template_source import make_chat_template
from tests.data.test_conversation import CONVERSATIONS, talk
from tests.data.test_templates import CHATML, LISTED, PATCHES, TEXT, messages, oracle
from tests.fixed_images import ONE_IMAGE, fixed_images, sizes_of
from tests.llama_like import KINDS, make_tokenizer

NAMES = ("vicuna_v1", "chatml", "llama-2")
ODD = "It's \\ a \u00e9\n{{ test }} \U0001f600."


@functools.cache
def make(name, kind="bytes", begins=True, system=None, source=None):
  tokenizer = make_tokenizer(kind, begins)
  tokenizer.chat_template = source
  encoder = make_encoder(name, tokenizer, fixed_images(3, PATCHES), 10_000, system)
  made, exact = make_chat_template(encoder)
  assert exact
  return encoder, made


def assert_same(encoder, source, values, listed, **more):
  sample = encoder.encode(talk(*values), sizes_of(values))
  ids, mask = oracle(encoder.tokenizer, source, messages(values, listed=listed, **more))
  assert ids.tolist() == sample.tokens.tolist()
  assert mask.tolist() == sample.supervised.tolist()


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, "qwen"])
@pytest.mark.parametrize("name", NAMES)
def test_transformers_writes_and_masks_the_rows_we_train_on(name, kind, begins):
  encoder, source = make(name, kind, begins)
  for values in CONVERSATIONS.values():
    for listed in (True, False):
      assert_same(encoder, source, values, listed)
  assert_same(encoder, source, ("what?", " ", "and?", "red"), False)


@pytest.mark.parametrize("system", ["", ODD])
@pytest.mark.parametrize("name", [*NAMES, "plain"])
def test_the_system_text_is_written(name, system):
  encoder, source = make(name, "first", system=system)
  question = "<image>" if name == "plain" else "what?"
  assert_same(encoder, source, (question, "red"), False)
  chat = messages((question, "red"))
  text = encoder.tokenizer.apply_chat_template(
    chat, chat_template=source, tokenize=False
  )
  if system:
    assert system in text
  # Whoever brings a system text of their own is given that one.
  own, _ = make(name, "first", system="Be brief.")
  assert_same(own, source, (question, "red"), False, system="Be brief.")


@pytest.mark.parametrize("kind", [*KINDS, "qwen"])
def test_captions_of_stage_one(kind):
  encoder, source = make("plain", kind)
  for answer in ("a star", "\u00e9", " two", "\nred"):
    for question in ("<image>", "<image>\nIn short?", "What is it?"):
      assert_same(encoder, source, (question, answer), True)


@pytest.mark.parametrize("kind", ["bytes", "first", "normalizer", "qwen"])
@pytest.mark.parametrize("name", NAMES)
def test_an_answer_is_asked_for_as_in_training(name, kind):
  encoder, source = make(name, kind)
  for has_image in (True, False):
    question = "<image>\nwhat colour?" if has_image else "what colour?"
    ids = encoder.tokenizer.apply_chat_template(
      messages([question]), chat_template=source, add_generation_prompt=True
    )["input_ids"]
    prompt = encoder.prompt("what colour?", has_image * ONE_IMAGE).tokens.tolist()
    if has_image:
      del prompt[prompt.index(3) : prompt.index(3) + PATCHES - 1]
    assert ids == prompt


def test_the_system_text_of_vicuna_is_in_the_source():
  _, source = make("vicuna_v1")
  system = TEMPLATES["vicuna_v1"].system
  assert system.replace("'", "\\'") in source and "{%- generation -%}" in source


@pytest.mark.parametrize(("own", "listed"), [(LISTED, True), (CHATML, False)])
def test_the_tokenizers_own_is_kept_or_given_the_system_text(own, listed):
  assert make("chat", "qwen", source=own)[1] is None
  encoder, source = make("chat", "qwen", source=own, system=ODD)
  assert source.endswith(own)
  for again in (encoder, make("chat", "qwen", source=source)[0]):
    assert_same(again, source, ("<image>\nwhat?", "red", "and?", "two"), listed)


def test_what_cannot_be_said_is_told():
  tokenizer = make_tokenizer("bytes")
  tokenizer.add_special_tokens({"additional_special_tokens": ["ASSISTANT"]})
  encoder = make_encoder("vicuna_v1", tokenizer, fixed_images(3, PATCHES), 1000)
  assert not make_chat_template(encoder)[1]


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  rounds=st.lists(st.tuples(TEXT, TEXT.filter(str.strip)), min_size=1, max_size=3),
  image=st.integers(0, 3),
  name=st.sampled_from(NAMES),
  kind=st.sampled_from([*KINDS, "qwen"]),
)
def test_any_text(rounds, image, name, kind):
  # An answer that begins inside a token is split in training; see the decisions.
  values = [value for q, a in rounds for value in (q, f"so {a}")]
  if image < len(rounds):
    values[2 * image] = f"<image>\n{values[2 * image]}"
  assert_same(*make(name, kind), values, False)
