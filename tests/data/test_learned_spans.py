"""What is learned of chat templates that do not mark it."""

import numpy as np
import pytest

from mllm_selector_jax.types import InputError
from tests.data.test_conversation import CONVERSATIONS, talk
from tests.data.test_templates import SOURCES, make
from tests.fixed_images import ONE_IMAGE, sizes_of

TAGS = ("{% generation %}", "{% endgeneration %}")
# As published with Qwen's and InternVL's models: the end of a turn has a line break
# behind it, which no answer includes.
TURNS = (
  "{% for message in messages %}<|im_start|>{{ message['role'] + '\n' }}"
  "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
  "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
  "{{ '<image>\n' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
  "<|im_end|>{{ '\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# It writes earlier answers otherwise than the last one.
FORGETS = TURNS.replace(
  "{% for message in messages %}",
  "{% for message in messages %}"
  "{% set kept = loop.last or message['role'] == 'user' %}",
).replace("{{ part['text'] }}", "{{ part['text'] }}{{ '' if kept else '!' }}")


def strip_tags(source):
  for tag in TAGS:
    source = source.replace(tag, "")
  return source


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("kind", CONVERSATIONS)
def test_beginnings_show_what_the_tags_enclose(name, kind):
  values = CONVERSATIONS[kind]
  marked, unmarked = (
    make("chat", source).encode(talk(*values), sizes_of(values))
    for source in (SOURCES[name], strip_tags(SOURCES[name]))
  )
  np.testing.assert_array_equal(unmarked.tokens, marked.tokens)
  np.testing.assert_array_equal(unmarked.turns, marked.turns)


def test_an_answer_is_learned_with_the_token_that_ends_it():
  encoder = make("chat", TURNS)
  sample = encoder.encode(talk("<image>\nwhat?", "red", "and?", "two"), ONE_IMAGE)
  assert encoder.tokenizer.decode(sample.tokens[sample.supervised]) == (
    "red<|im_end|>two<|im_end|>"
  )
  text = encoder.tokenizer.decode(sample.tokens).replace("<image>", "")
  assert text == (
    "<|im_start|>user\n\nwhat?<|im_end|>\n<|im_start|>assistant\nred<|im_end|>\n"
    "<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>\n"
  )


def test_several_images_stand_where_the_template_puts_them():
  encoder = make("chat", TURNS)
  asked = "<image>\n<image>\nsame?"
  sample = encoder.encode(talk(asked, "yes", "and <image>?", "no"), ONE_IMAGE * 3)
  text = encoder.tokenizer.decode(sample.tokens)
  for image in sample.images:
    assert (sample.tokens[image.start : image.stop] == encoder.image_token).all()
  one = "<image>" * len(sample.images[0].layout.tokens)
  assert f"user\n{one}\n{one}\nsame?<|im_end|>" in text


def test_a_template_that_forgets_is_refused_with_the_reason():
  with pytest.raises(InputError, match="written otherwise when more rounds follow"):
    make("chat", FORGETS)
