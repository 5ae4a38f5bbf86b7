"""Chats of Idefics 3 and SmolVLM to tokens, against the families' processors."""

import pytest

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.tokens.conversation import make_encoder
from mllm_selector_jax.types import ImageOptions
from tests.data.test_conversation import talk
from tests.data.test_image_forms import HALF, noise
from tests.data.test_native_chats import SIZES, VALUES, sizes_of
from tests.data.test_several_images import make_messages
from tests.idefics3_files import (
  BEGIN,
  END,
  PROCESSORS,
  make_family_tokenizer,
  make_processor,
  read_tokens,
)

FAMILIES = list(PROCESSORS)
SPLIT = {"split": True, "whole": False}


def make(family, split=True, **options):
  tokenizer = make_family_tokenizer(family)
  images = ImageOptions(
    16,
    HALF,
    HALF,
    resample=1,
    form=family,
    grid=2,
    longest_edge=48,
    split=split,
    rotate=True,
  )
  images = BaseImages(images, read_tokens(tokenizer))
  return make_encoder("auto", tokenizer, images, 4096, **options)


def ask_processor(encoder, chat, sizes, **options):
  """The token ids of a conversation, by the processor from template to last token."""
  form = encoder.images.options.form
  processor = make_processor(form, encoder.images.options)
  text = processor.apply_chat_template(chat, tokenize=False, **options)
  images = [[noise(*size) for size in sizes]] if sizes else None
  found = processor(text=[text], images=images, add_special_tokens=False)
  return found["input_ids"][0]


def make_chat(values, system=None):
  chat = make_messages(values, None, listed=True, leads=False)
  if system:
    text = [{"type": "text", "text": system}]
    chat = [{"role": "system", "content": text}, *chat]
  return chat


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("split", SPLIT)
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_the_processors(family, split, system):
  encoder = make(family, SPLIT[split], system=system)
  for values in VALUES.values():
    sizes = sizes_of(values)
    sample = encoder.encode(talk(*values), sizes)
    wanted = ask_processor(encoder, make_chat(values, system), sizes)
    assert sample.tokens.tolist() == list(wanted)
    for image, size in zip(sample.images, sizes, strict=True):
      span = sample.tokens[image.start : image.stop].tolist()
      assert span == encoder.images.lay_out(*size).tokens.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_are_the_processors(family):
  encoder = make(family)
  prompt = encoder.prompt("<image>\nwhat is it?", SIZES[:1])
  chat = make_chat(("<image>\nwhat is it?",))
  wanted = ask_processor(encoder, chat, SIZES[:1], add_generation_prompt=True)
  assert prompt.tokens.tolist() == list(wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_their_ends_are_learned(family):
  encoder = make(family)
  tokenizer = encoder.tokenizer
  sample = encoder.encode(talk("<image>\nwhat?", "a star", "and?", "two"), SIZES[:1])
  learned = tokenizer.decode(sample.tokens[sample.supervised])
  assert learned == f" a star{END} two{END}"
  end = tokenizer.convert_tokens_to_ids(END)
  ids = [*tokenizer(" a star", add_special_tokens=False)["input_ids"], end, 9, 9]
  assert encoder.answers.read(ids) == "a star"
  assert tokenizer.decode(sample.tokens[:1]) == BEGIN


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_s_text_cannot_mark_a_tile(family):
  encoder = make(family)
  text = "a <row_1_col_2> and <global-img> or <fake_token_around_image>"
  sample = encoder.encode(talk(text, "a star"))
  marks = set(encoder.images.tokens.marks) & set(encoder.tokenizer.added_tokens_decoder)
  assert not marks & set(sample.tokens.tolist())
  assert len(marks) == (38 if family == "smolvlm" else 1)
  assert text in encoder.tokenizer.decode(sample.tokens)
