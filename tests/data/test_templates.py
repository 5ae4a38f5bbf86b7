"""The templates beside LLaVA's, against transformers' own chat rendering."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from mllm_selector_jax.data.tokens.chat_template import ChatTemplate
from mllm_selector_jax.data.tokens.conversation import TEMPLATES, Encoder, make_encoder
from mllm_selector_jax.types import InputError, RowError
from tests.data.test_conversation import CONVERSATIONS, talk
from tests.fixed_images import ONE_IMAGE, fixed_images, sizes_of
from tests.llama_like import KINDS, make_tokenizer

PATCHES = 5
# As Qwen's, with the marks of what is learned.
CHATML = (
  "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
  "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}"
  "<|im_end|>{% endgeneration %}{% else %}{{ message['content'] }}<|im_end|>"
  "{% endif %}{{ '\n' }}{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Llama 3's, which trims its turns, with messages as lists of parts.
LISTED = (
  "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n\n"
  "{% if message['role'] == 'assistant' %}{% generation %}"
  "{{ message['content'][0]['text'] | trim }}<|im_end|>{% endgeneration %}"
  "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
  "<image>{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}<|im_end|>"
  "{% endif %}{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
# As llava-hf's: a blank before the answer that the generation prompt has not.
BLANK = (
  "{% for message in messages %}{% if message['role'] == 'user' %}"
  "USER: {{ message['content'] }} {% else %}ASSISTANT: {% generation %}"
  "{{ message['content'] }}{{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
  "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SWAPPED = (
  "{% for message in messages %}{% if message['role'] == 'user' %}{% generation %}"
  "{{ message['content'] }}{% endgeneration %}{% else %}{{ message['content'] }}"
  "{% endif %}{% endfor %}"
)
SOURCES = {"chatml": CHATML, "listed": LISTED, "blank": BLANK}


def make(name="chatml", source=None, kind="qwen", max_length=10_000, system=None):
  tokenizer = make_tokenizer(kind, begins=False)
  tokenizer.chat_template = source
  return make_encoder(name, tokenizer, fixed_images(3, PATCHES), max_length, system)


def messages(values, system=None, listed=False):
  """A conversation as transformers takes it."""
  content = [{"type": "text", "text": system}] if listed else system
  found = [{"role": "system", "content": content}] if system else []
  for place, value in enumerate(values):
    has_image = "<image>" in value
    if has_image:
      value = value.replace("<image>", "").strip()
      if not listed:
        value = f"<image>\n{value}" if value else "<image>"
    if listed:
      text = {"type": "text", "text": value}
      value = [{"type": "image"}, text] if has_image else [text]
    found.append({"role": ("user", "assistant")[place % 2], "content": value})
  return found


def oracle(tokenizer, source, chat):
  """Ids and mask as transformers has them, the image expanded."""
  found = tokenizer.apply_chat_template(
    chat, chat_template=source, return_dict=True, return_assistant_tokens_mask=True
  )
  ids, mask = (np.array(found[name]) for name in ("input_ids", "assistant_masks"))
  copies = np.where(ids == 3, PATCHES, 1)
  return np.repeat(ids, copies), np.repeat(mask, copies).astype(bool)


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_chatml_is_what_transformers_renders(kind, name):
  values = CONVERSATIONS[name]
  encoder = make(kind=kind)
  sample = encoder.encode(talk(*values), sizes_of(values))
  chat = messages(values, TEMPLATES["chatml"].system)
  ids, mask = oracle(encoder.tokenizer, CHATML, chat)
  assert sample.tokens.tolist() == ids.tolist()
  np.testing.assert_array_equal(sample.supervised, mask)
  assert sample.turns.max() == len(values) // 2 - 1


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("source", ["chatml", "listed"])
def test_chat_is_what_transformers_renders(source, name, system):
  values = CONVERSATIONS[name]
  encoder = make("chat", SOURCES[source], system=system)
  sample = encoder.encode(talk(*values), sizes_of(values))
  chat = messages(values, system, listed=source == "listed")
  ids, mask = oracle(encoder.tokenizer, SOURCES[source], chat)
  assert sample.tokens.tolist() == ids.tolist()
  np.testing.assert_array_equal(sample.supervised, mask)


@pytest.mark.parametrize("kind", ["bytes", "always"])
def test_the_blank_before_an_answer_is_learned(kind):
  encoder = make("chat", BLANK, kind)
  sample = encoder.encode(talk("what?", "red", "and?", "no"))
  chat = messages(["what?", "red", "and?", "no"])
  ids, mask = oracle(encoder.tokenizer, BLANK, chat)
  assert sample.tokens.tolist() == ids.tolist()
  assert (sample.supervised >= mask).all()
  for turn, answer in enumerate(["red", "no"]):
    learned = sample.tokens[sample.turns == turn]
    assert encoder.tokenizer.decode(learned).strip() == f"{answer}</s>"


ANSWERS = ["red", "é", "你好", " two", "x", "\n- a", "\n\nred", ": a"]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("has_image", [False, True])
@pytest.mark.parametrize("name", ["vicuna_v1", "chatml", "llama-2", "listed", "blank"])
@pytest.mark.parametrize("kind", ["bytes", "qwen"])
def test_prompt_is_the_beginning_of_the_row(kind, name, has_image, answer):
  """GPT-2's way to split sees two line ends otherwise when an answer follows."""
  source = SOURCES.get(name)
  encoder = make("chat" if source else name, source, kind)
  question = "<image>\nwhat colour?" if has_image else "what colour?"
  sample = encoder.encode(talk(question, answer), has_image * ONE_IMAGE)
  prompt = encoder.prompt("what colour?", has_image * ONE_IMAGE)
  np.testing.assert_array_equal(sample.tokens[: len(prompt.tokens)], prompt.tokens)
  assert sample.supervised.argmax() == len(prompt.tokens)
  assert (prompt.tokens == 3).sum() == has_image * PATCHES
  assert encoder.answers.decode(sample.tokens[sample.supervised]) == answer.strip()


@pytest.mark.parametrize("name", ["chatml", "chat"])
def test_a_token_of_frame_and_answer_is_split(name):
  """Two line ends are one token; the prompt's is its own."""
  encoder = make(name, CHATML if name == "chat" else None)
  sample = encoder.encode(talk("what?", "\nred", "and?", "\n\nno"))
  tokens = [encoder.tokenizer.convert_ids_to_tokens(int(t)) for t in sample.tokens]
  assert "\u010a\u010a" not in tokens[: sample.supervised.argmax() + 1]
  text = encoder.tokenizer.decode(sample.tokens)
  assert "assistant\n\nred<|im_end|>\n" in text
  assert "assistant\n\n\nno<|im_end|>\n" in text


SPECIAL_TEXT = ["<|im_end|>", "<|im_start|>system\nno", "<s>", "</s> a", "<image >"]


@pytest.mark.parametrize("text", SPECIAL_TEXT)
@pytest.mark.parametrize("name", ["chatml", "llama-2", "chat"])
def test_special_text_is_literal(name, text):
  encoder = make(name, CHATML)
  special = encoder.tokenizer.all_special_ids + [3, 4, 5]

  def specials(*values):
    tokens = encoder.encode(talk(*values)).tokens
    return [token for token in tokens.tolist() if token in special]

  wanted = specials("say it", "so", "and", "no")
  assert specials(f"say {text}", f"so: {text} ok", text, text) == wanted
  prompt = encoder.prompt(f"say {text}").tokens
  assert list(prompt).count(5) == list(encoder.prompt("say").tokens).count(5)


@pytest.mark.parametrize("kind", ["qwen", "first"])
@pytest.mark.parametrize(
  ("name", "source", "first"),
  [
    ("chatml", None, 5),
    ("llama-2", None, 2),
    ("vicuna_v1", None, 2),
    ("chat", CHATML, 5),
    ("chat", BLANK, 2),
    ("chat", CHATML.replace("<|im_end|>{% endg", " <|im_end|>{% endg"), 5),
    ("chat", CHATML.replace("<|im_end|>{% endg", "###<|im_end|>{% endg"), 5),
  ],
)
def test_the_token_that_closes_an_answer_is_the_first_of_its_ends(
  name, source, first, kind
):
  answers = make(name, source, kind).answers
  assert answers.stops
  assert answers.ends == tuple(dict.fromkeys([first, 2]))


@pytest.mark.parametrize("kind", ["bytes", "first", "normalizer", "qwen"])
@pytest.mark.parametrize("name", ["plain", "chat"])
def test_text_that_closes_an_answer_ends_it_by_every_token_that_holds_it(name, kind):
  """As in `plain`: a tokenizer may join the new line to what stands before it."""
  source = CHATML.replace("<|im_end|>{% endg", "\n{% endg")
  encoder = make(name, source.replace("{{ '\n' }}", ""), kind)
  question = "<image>" if name == "plain" else "what?"
  for answer in ("A red circle.", "two", 'say "no"!', "a: ", "red -"):
    sample = encoder.encode(talk(question, answer), (name == "plain") * ONE_IMAGE)
    learned = sample.tokens[sample.supervised].tolist()
    ends = encoder.answers.ends
    assert ends[0] == 2 and encoder.answers.stops
    # It is the last token, and none before it, that ends the answer.
    assert [token in ends for token in learned] == [False] * (len(learned) - 1) + [True]
    assert encoder.answers.read([*learned, *learned]) == answer.strip()
    # transformers stops there, too, and then gives the same text.
    text = encoder.tokenizer.decode(learned, skip_special_tokens=True)
    assert text.strip() == answer.strip()


def test_no_token_ends_an_answer_whose_end_is_several():
  encoder = make("chat", CHATML.replace("<|im_end|>{% endg", " end of it{% endg"))
  assert not encoder.answers.stops and encoder.answers.ends == (2,)
  learned = encoder.encode(talk("what?", "red"))
  ids = learned.tokens[learned.supervised].tolist()
  assert encoder.answers.read([*ids, *ids]) == "red"


def test_llama_2_by_hand():
  encoder = make("llama-2", system="Be brief.")
  sample = encoder.encode(talk("what?", "red", "and?", "no"))
  text = encoder.tokenizer.decode(sample.tokens)
  assert text == (
    "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nwhat? [/INST] red </s>"
    "<s>[INST] and? [/INST] no </s>"
  )
  learned = encoder.tokenizer.decode(sample.tokens[sample.supervised])
  assert learned == " red </s> no </s>"


def test_an_empty_answer_is_not_learned():
  for name in ("chatml", "chat"):
    sample = make(name, CHATML).encode(talk("what?", " ", "and?", "red"))
    assert set(sample.turns.tolist()) == {-1, 1}


@pytest.mark.parametrize("name", ["chatml", "llama-2", "chat"])
def test_a_long_row_is_cut(name):
  row = talk("<image>\nwhat?", "red", "and?", "no " * 3000)
  whole = make(name, CHATML, max_length=100_000).encode(row, ONE_IMAGE)
  cut = make(name, CHATML, max_length=90).encode(row, ONE_IMAGE)
  assert cut.truncated
  for wanted, found in zip(whole[:3], cut[:3], strict=True):
    np.testing.assert_array_equal(wanted[:90], found)


@pytest.mark.parametrize(
  ("values", "max_length", "is_masked"),
  [
    (("say ASSISTANT: a", "b"), 2048, True),
    (("what?", "a ASSISTANT: b"), 2048, True),
    (("what?", "red", "a", "b ASSISTANT: c"), 2048, True),
    (("what?", "ASSISTANT: b"), 2048, False),
    (("what?", "the ASSISTANT said"), 2048, False),
    (("what?", "red " * 300, "a ASSISTANT: b", "c"), 200, False),
  ],
)
def test_rows_that_llava_masks_are_set_aside(values, max_length, is_masked):
  encoder = make("vicuna_v1", max_length=max_length)
  if not is_masked:
    encoder.encode(talk(*values))
    return
  with pytest.raises(RowError, match="ASSISTANT") as caught:
    encoder.encode(talk(*values))
  assert caught.value.reason == "masked by LLaVA"
  # Where the frame is made of special tokens, the same text is text.
  make("chatml").encode(talk(*values))


@pytest.mark.parametrize(
  ("source", "words"),
  [
    (None, "no chat template"),
    ("{% generation %}{{ nothing.at.all }}{% endgeneration %}", "fails"),
    (CHATML.replace("{{ message['content'] }}<|im_end|>{% e", "{% e"), "each turn"),
    (
      CHATML.replace("assistant\n{% endif", "other\n{% endif"),
      "differs from the text before",
    ),
    (
      CHATML.replace("['content']", "['content'] | replace('A ', '')"),
      "changes the text",
    ),
    (SWAPPED, "enclose"),
    (LISTED.replace("<image>", ""), "each turn"),
    (CHATML.replace("['content']", "['content'] | replace('<image>', '')"), "for one"),
  ],
)
def test_chat_templates_that_cannot_be_followed(source, words):
  with pytest.raises(InputError) as caught:
    make("chat", source)
  assert words in str(caught.value)
  assert "chat" in str(caught.value)


def test_a_tokenizer_without_the_templates_tokens():
  from tests.tokenizers_on_the_spot import make_tokenizer as without

  with pytest.raises(InputError, match="im_start"):
    Encoder(without("bytes"), TEMPLATES["chatml"], fixed_images(4, PATCHES), 100)


def test_an_unknown_name():
  with pytest.raises(InputError, match="vicuna_v1, plain, chatml, llama-2, chat"):
    make("alpaca")
  assert isinstance(TEMPLATES["chat"], ChatTemplate)


TEXT = st.text(
  st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Co", "Cn"]), max_size=20
).filter(lambda text: "<" not in text)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  rounds=st.lists(st.tuples(TEXT, TEXT.filter(str.strip)), min_size=1, max_size=4),
  image=st.integers(0, 4),
  source=st.sampled_from(["chatml", "listed"]),
)
def test_any_text_is_tokenised_as_transformers_does(rounds, image, source):
  values = [value for item in rounds for value in item]
  if has_image := image < len(rounds):
    values[2 * image] = f"<image>\n{values[2 * image]}"
  encoder = make("chat", SOURCES[source])
  sample = encoder.encode(talk(*values), has_image * ONE_IMAGE)
  chat = messages(values, listed=source == "listed")
  ids, mask = oracle(encoder.tokenizer, SOURCES[source], chat)
  assert sample.tokens.tolist() == ids.tolist()
  np.testing.assert_array_equal(sample.supervised, mask)
