"""Conversations to tokens, against LLaVA's own way of doing it, written plainly."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from mllm_selector_jax.data.tokens.conversation import TEMPLATES, Encoder
from mllm_selector_jax.data.tokens.dialogue import read_dialogue, read_rounds
from mllm_selector_jax.types import InputError, RowError
from tests.fixed_images import ONE_IMAGE, fixed_images, sizes_of
from tests.tokenizers_on_the_spot import KINDS, make_tokenizer

PATCHES = 5
VICUNA = TEMPLATES["vicuna_v1"]


def make_encoder(kind="bytes", max_length=10_000, template="vicuna_v1", system=None):
  tokenizer = make_tokenizer(kind)
  return Encoder(
    tokenizer,
    TEMPLATES[template],
    fixed_images(tokenizer.convert_tokens_to_ids("<image>"), PATCHES),
    max_length=max_length,
    system=system,
  )


def talk(*values):
  roles = ("human", "gpt")
  return [{"from": roles[n % 2], "value": v} for n, v in enumerate(values)]


def oracle_text(values, system=VICUNA.system):
  """The whole conversation as one text, image mark included."""
  text = f"{system} " if system else ""
  for question, answer in zip(values[::2], values[1::2], strict=True):
    if "<image>" in question:
      rest = question.replace("<image>", "").strip()
      question = f"<image>\n{rest}".strip()
    text += f"USER: {question} ASSISTANT: {answer}</s>"
  return text


def oracle_tokens(tokenizer, text):
  """Chunks between images, each tokenised on its own with specials recognised."""
  ids = [tokenizer.bos_token_id]
  for place, chunk in enumerate(text.split("<image>")):
    if place:
      ids += [tokenizer.convert_tokens_to_ids("<image>")] * PATCHES
    ids += tokenizer(chunk, add_special_tokens=False)["input_ids"]
  return ids


CONVERSATIONS = {
  "one turn": ("<image>\nwhat colour is the circle?", "red"),
  "mark at the end": ("what colour is the circle?\n<image>", "red"),
  "mark inside": ("what <image> colour?", "red"),
  "only the mark": ("<image>", "a red circle"),
  "text only": ("how many squares are in the picture?", "two"),
  "three turns": (
    "<image>\nwhat is it?",
    "a star",
    "which colour?",
    "blue",
    "why?",
    "no",
  ),
  "later image": ("is there a star?", "no", "and here?\n<image>", "yes", "one?", "two"),
  "unicode": ("<image>\nwas ist das für ein Ding? 你好", "größer 🙂 é"),
  "spaces": ("<image>\n  odd   spacing ", "  two  words "),
  "lines": ("list\nthem", "one\ntwo\n\nthree\n"),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_llavas(kind, name):
  encoder, values = make_encoder(kind), CONVERSATIONS[name]
  sample = encoder.encode(talk(*values), sizes_of(values))
  text = oracle_text(values)
  assert sample.tokens.tolist() == oracle_tokens(encoder.tokenizer, text)
  assert not sample.truncated
  assert sample.tokens.dtype == np.int32


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_supervised_tokens_are_the_answers(kind, name):
  encoder, values = make_encoder(kind), CONVERSATIONS[name]
  sample = encoder.encode(talk(*values), sizes_of(values))
  end = encoder.tokenizer.eos_token_id
  np.testing.assert_array_equal(sample.supervised, sample.turns >= 0)
  assert not sample.supervised[0]
  for turn, answer in enumerate(values[1::2]):
    ids = sample.tokens[sample.turns == turn]
    assert ids[-1] == end
    assert (ids[:-1] != end).all()
    text = encoder.tokenizer.decode(ids[:-1].tolist())
    assert text.strip() == answer.strip()
    # The span is one piece, and everything else is asked, not learned.
    places = np.flatnonzero(sample.turns == turn)
    np.testing.assert_array_equal(np.diff(places), 1)
  assert sample.turns.max() == len(values) // 2 - 1


@pytest.mark.parametrize("answer", ["red", "é", "你好", " two", "x", "\n- a"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_that_follows_the_prompt_is_learned(kind, answer):
  encoder = make_encoder(kind)
  sample = encoder.encode(talk("what colour?", answer))
  prompt = encoder.prompt("what colour?").tokens
  np.testing.assert_array_equal(sample.tokens[: len(prompt)], prompt)
  assert sample.supervised[len(prompt) :].all()
  assert not sample.supervised[: len(prompt)].any()


@pytest.mark.parametrize("has_image", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_prompt_is_the_beginning_of_the_row(kind, has_image):
  encoder = make_encoder(kind)
  question = "is there a star?"
  marked = f"<image>\n{question}" if has_image else question
  sample = encoder.encode(talk(marked, "no"), has_image * ONE_IMAGE)
  for asked in {marked, question}:
    prompt = encoder.prompt(asked, has_image * ONE_IMAGE)
    np.testing.assert_array_equal(sample.tokens[: len(prompt.tokens)], prompt.tokens)
    assert sample.supervised.argmax() == len(prompt.tokens)
  assert (prompt.tokens == encoder.image_token).sum() == has_image * PATCHES


@pytest.mark.parametrize("text", ["</s>", "<s>", "<image >", "<pad>", "a </s> b"])
@pytest.mark.parametrize("kind", KINDS)
def test_special_text_is_literal(kind, text):
  encoder = make_encoder(kind)
  tokenizer = encoder.tokenizer
  sample = encoder.encode(talk(f"say {text}", f"so: {text} ok"))
  special = set(tokenizer.all_special_ids)
  assert [t for t in sample.tokens.tolist() if t in special] == [
    tokenizer.bos_token_id,
    tokenizer.eos_token_id,
  ]
  answer = sample.tokens[sample.supervised][:-1].tolist()
  assert tokenizer.decode(answer).strip() == f"so: {text} ok"
  prompt = encoder.prompt(f"say {text}").tokens
  assert not special & set(prompt[1:].tolist())


def test_image_text_is_literal_in_a_text_only_prompt():
  encoder = make_encoder()
  assert encoder.image_token not in encoder.prompt("what is <image>?").tokens


def test_image_token_that_is_not_special_is_literal_too():
  tokenizer = make_tokenizer("first")
  tokenizer.add_tokens(["<picture>"])
  token = tokenizer.convert_tokens_to_ids("<picture>")
  encoder = Encoder(tokenizer, VICUNA, fixed_images(token, PATCHES), 1000)
  sample = encoder.encode(talk("<image>\nwhat is <picture>?", "red"), ONE_IMAGE)
  assert (sample.tokens == token).sum() == PATCHES


def test_no_system_text():
  encoder = make_encoder("bytes", system="")
  sample = encoder.encode(talk("what?", "red"))
  text = encoder.tokenizer.decode(sample.tokens.tolist())
  assert text == "<s>USER: what? ASSISTANT: red</s>"


def test_other_system_text():
  encoder = make_encoder("bytes", system="Be brief.")
  sample = encoder.encode(talk("what?", "red", "why?", "so"))
  text = encoder.tokenizer.decode(sample.tokens.tolist())
  assert text == (
    "<s>Be brief. USER: what? ASSISTANT: red</s>USER: why? ASSISTANT: so</s>"
  )


def test_no_bos_where_the_tokenizer_adds_none():
  tokenizer = make_tokenizer("bytes")
  tokenizer.backend_tokenizer.post_processor = None
  encoder = Encoder(tokenizer, VICUNA, fixed_images(4, PATCHES), 1000, system="")
  sample = encoder.encode(talk("what?", "red"))
  assert tokenizer.bos_token_id not in sample.tokens
  assert tokenizer.decode(sample.tokens.tolist()).startswith("USER:")


def test_plain_template_is_image_caption_line():
  encoder = make_encoder("bytes", template="plain")
  sample = encoder.encode(talk("<image>\nDescribe it.", "a red star"), ONE_IMAGE)
  tokens = sample.tokens.tolist()
  assert tokens[: PATCHES + 1] == [1] + [encoder.image_token] * PATCHES
  assert encoder.tokenizer.decode(tokens[PATCHES + 1 :]) == "a red star\n"
  np.testing.assert_array_equal(np.flatnonzero(~sample.supervised), range(PATCHES + 1))
  np.testing.assert_array_equal(
    encoder.prompt("Describe it.", ONE_IMAGE).tokens, tokens[: PATCHES + 1]
  )
  with pytest.raises(RowError, match="malformed"):
    encoder.encode(talk("<image>", "a", "b", "c"), ONE_IMAGE)


def assert_same(one, other):
  for mine, theirs in zip(one[:-1], other[:-1], strict=True):
    np.testing.assert_array_equal(mine, theirs)
  assert [i.start for i in one.images] == [i.start for i in other.images]


def test_many_is_each():
  encoder = make_encoder("first")
  rows = [(talk(*values), sizes_of(values)) for values in CONVERSATIONS.values()]
  rows[3:3] = [(None, []), (talk("a", "b"), ONE_IMAGE)]
  together = encoder.encode_many(rows)
  assert [isinstance(r, RowError) for r in together[2:6]] == [False, True, True, False]
  for row, result in zip(rows, together, strict=True):
    if isinstance(result, RowError):
      continue
    alone = encoder.encode(*row)
    assert_same(alone, result)


def test_a_conversation_that_is_read_already_gives_the_same_tokens():
  encoder = make_encoder("first")
  system = [{"from": "system", "value": "Be brief."}]
  for values in CONVERSATIONS.values():
    conversations, sizes = system + talk(*values), sizes_of(values)
    rows = [(conversations, sizes), (read_dialogue(conversations), sizes)]
    assert_same(*encoder.encode_many(rows))


def test_decode_gives_the_answer_back():
  encoder = make_encoder("first")
  sample = encoder.encode(talk("what?", "red circle"))
  assert encoder.answers.decode(sample.tokens[sample.supervised]) == "red circle"
  assert encoder.answers.decode([]) == ""


TEXT = st.text(
  st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Co", "Cn"]), max_size=20
).filter(lambda text: "<" not in text)
ANSWER = TEXT.filter(str.strip)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  rounds=st.lists(st.tuples(TEXT, ANSWER), min_size=1, max_size=4),
  kind=st.sampled_from(KINDS),
  image=st.integers(0, 4),
)
def test_any_text_is_tokenised_as_llava_does(rounds, kind, image):
  encoder = make_encoder(kind)
  values = [value for item in rounds for value in item]
  if has_image := image < len(rounds):
    values[2 * image] = f"<image>\n{values[2 * image]}"
  sample = encoder.encode(talk(*values), has_image * ONE_IMAGE)
  assert sample.tokens.tolist() == oracle_tokens(encoder.tokenizer, oracle_text(values))
  ends = np.flatnonzero(sample.tokens == encoder.tokenizer.eos_token_id)
  assert len(ends) == len(rounds)
  assert sample.supervised[ends].all()
  for turn in range(len(rounds)):
    ids = sample.tokens[sample.turns == turn].tolist()
    assert encoder.answers.decode(ids) == rounds[turn][1].strip()


def test_rounds():
  found = read_rounds(talk("a", "b", "c", "d"))
  assert found == [("a", "b", True), ("c", "d", True)]


def test_a_tokenizer_without_the_image_token():
  tokenizer = make_tokenizer()
  with pytest.raises(InputError, match="image token"):
    Encoder(tokenizer, VICUNA, fixed_images(len(tokenizer), PATCHES), 100)


def test_a_tokenizer_without_an_end():
  tokenizer = make_tokenizer()
  tokenizer.eos_token = None
  with pytest.raises(InputError, match="end-of-sequence"):
    Encoder(tokenizer, VICUNA, fixed_images(4, PATCHES), 100)


def test_a_slow_tokenizer():
  with pytest.raises(InputError, match="fast"):
    Encoder(object(), VICUNA, fixed_images(4, PATCHES), 100)
