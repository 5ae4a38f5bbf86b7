"""Conversations of Mistral 3 to tokens, against the family's own processor."""

import numpy as np
import pytest

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.tokens import template_source
from mllm_selector_jax.data.tokens.conversation import make_encoder
from mllm_selector_jax.types import ImageOptions, ImageTokens
from tests.data.test_conversation import talk
from tests.data.test_image_forms import HALF, noise
from tests.data.test_native_chats import SIZES, VALUES, sizes_of
from tests.data.test_several_images import ROWS, make_messages
from tests.pixtral_files import (
  BREAK,
  END,
  IMAGE,
  SORTING,
  make_pixtral_tokenizer,
  make_processor,
)

SIDE, EDGE = 28, 140


def make(name="auto", **options):
  tokenizer = make_pixtral_tokenizer()
  image, between, end = tokenizer.convert_tokens_to_ids([IMAGE, BREAK, END])
  images = BaseImages(
    ImageOptions(
      SIDE, HALF, HALF, form="pixtral", grid=1, longest_edge=EDGE, rotate=True
    ),
    ImageTokens(image, end=(end,), between=(between,)),
  )
  return make_encoder(name, tokenizer, images, 4096, **options)


def ask_processor(encoder, chat, sizes, **options):
  """The token ids of a conversation, by the processor from template to last token."""
  processor = make_processor(encoder.tokenizer, SIDE, EDGE)
  text = processor.apply_chat_template(chat, tokenize=False, **options)
  images = [noise(*size) for size in sizes]
  found = processor(text=[text], images=images or None, add_special_tokens=False)
  return found["input_ids"][0].tolist()


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("row", VALUES)
def test_tokens_are_the_processors(row, system):
  values, sizes = VALUES[row], sizes_of(VALUES[row])
  encoder = make(system=system)
  sample = encoder.encode(talk(*values), sizes)
  chat = make_messages(values, None, listed=True, leads=False)
  if system:
    chat = [{"role": "system", "content": system}, *chat]
  assert sample.tokens.tolist() == ask_processor(encoder, chat, sizes)
  assert len(sample.images) == len(sizes)
  for image, size in zip(sample.images, sizes, strict=True):
    span = sample.tokens[image.start : image.stop].tolist()
    rows, columns = image.layout.grid
    names = encoder.tokenizer.convert_ids_to_tokens(span)
    assert names == [*([IMAGE] * columns + [BREAK]) * rows][:-1] + [END]
    assert image.layout == encoder.images.lay_out(*size)
  for turn, answer in enumerate(values[1::2]):
    learned = sample.tokens[sample.turns == turn].tolist()
    assert encoder.tokenizer.decode(learned) == f"{answer}</s>"
  np.testing.assert_array_equal(sample.supervised, sample.turns >= 0)


@pytest.mark.parametrize(
  "values",
  [
    ("<image>\nwhat is it?", "a star"),
    ("what is in\n<image>", "a star"),
    ("is <image> like <image>?", "no", "and <image>?", "yes"),
  ],
)
def test_an_image_that_the_template_puts_first_is_found_there(values):
  """As Ministral 3's, which sorts an image and a text."""
  tokenizer = make_pixtral_tokenizer(SORTING)
  encoder = make_encoder("auto", tokenizer, make().images, 4096)
  sizes = sizes_of(values)
  chat = make_messages(values, None, listed=True, leads=False)
  wanted = ask_processor(encoder, chat, sizes)
  assert encoder.encode(talk(*values), sizes).tokens.tolist() == wanted


def test_a_prompt_is_what_the_processor_asks_with():
  encoder = make()
  question, sizes = "is <image> like <image> or <image>?", SIZES[:3]
  prompt = encoder.prompt(question, sizes)
  chat = make_messages([question], None, listed=True, leads=False)
  wanted = ask_processor(encoder, chat, sizes, add_generation_prompt=True)
  assert prompt.tokens.tolist() == wanted
  assert not prompt.supervised.any()


@pytest.mark.parametrize("name", ["chatml", "vicuna_v1"])
def test_a_template_written_for_an_export_leaves_the_marks_to_the_processor(name):
  encoder = make(name)
  source, exact = template_source.make_chat_template(encoder)
  assert exact
  values, sizes = ("<image>\nwhat is it?", "a star"), SIZES[:1]
  encoder.tokenizer.chat_template = source
  chat = make_messages(values, None, listed=True, leads=False)
  wanted = ask_processor(encoder, chat, sizes)
  assert encoder.encode(talk(*values), sizes).tokens.tolist() == wanted


@pytest.mark.parametrize("name", ["auto", "vicuna_v1"])
def test_marks_of_images_in_a_text_stay_text(name):
  encoder = make(name)
  ids = encoder.tokenizer.convert_tokens_to_ids
  question = f"{IMAGE}{BREAK}{END} <image> {BREAK} {END}?"
  sample = encoder.encode(talk(question, f"a {IMAGE} of {BREAK}"), SIZES[:1])
  plain = encoder.encode(talk("<image> what?", "a star"), SIZES[:1])
  for token in (IMAGE, BREAK, END):
    counts = [(each.tokens == ids(token)).sum() for each in (sample, plain)]
    assert counts[0] == counts[1], token
  prompt = encoder.prompt(f"{IMAGE}{BREAK}{END}what?").tokens
  assert not np.isin(prompt, ids([IMAGE, BREAK, END])).any()


def test_a_limit_shortens_a_row():
  free = make()
  few = BaseImages(free.images.options, free.images.tokens, resize_pixels=6 * SIDE**2)
  limited = make_encoder("auto", free.tokenizer, few, 4096)
  rows = [
    encoder.encode(talk(*ROWS["together"]), [(400, 300), (30, 30)])
    for encoder in (free, limited)
  ]
  saved = [sum(few.count_saved(*size)) for size in [(400, 300), (30, 30)]]
  assert saved[0] > 0 and saved[1] == 0
  assert len(rows[0].tokens) - len(rows[1].tokens) == sum(saved)
