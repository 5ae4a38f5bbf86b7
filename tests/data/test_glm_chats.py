"""Conversations of GLM-4.1V to tokens, against the family's own processor."""

import numpy as np
import pytest
import transformers

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.tokens import template_source
from mllm_selector_jax.data.tokens.conversation import make_encoder
from mllm_selector_jax.types import ImageOptions, ImageTokens
from tests.data import glm_chats
from tests.data.test_conversation import talk
from tests.data.test_image_forms import HALF
from tests.data.test_native_chats import SIZES, VALUES, ask_processor, sizes_of
from tests.data.test_several_images import make_messages
from tests.llama_like import make_tokenizer
from tests.models.huggingface.test_image_options import WithoutVideos

MARKS = (glm_chats.BEGIN, glm_chats.END, glm_chats.IMAGE, *glm_chats.VIDEO)


class PlainIds(WithoutVideos):
  """Keeps token ids from becoming arrays in a way that numpy 2 warns of."""

  def create_mm_token_type_ids(self, input_ids):
    return super().create_mm_token_type_ids([[*map(int, ids)] for ids in input_ids])


class Glm4vProcessor(PlainIds, transformers.Glm4vProcessor):
  """GLM-4.1V's processor without one of videos."""


class Glm46VProcessor(PlainIds, transformers.Glm46VProcessor):
  """GLM-4.6V's processor without one of videos."""


def make(name="auto", **options):
  tokenizer = make_tokenizer("qwen", begins=False)
  special = [*MARKS, *glm_chats.ROLES, *glm_chats.START, "<|endoftext|>"]
  tokenizer.add_special_tokens({"additional_special_tokens": special})
  tokenizer.chat_template = glm_chats.GLM4V
  begin, image, end = tokenizer.convert_tokens_to_ids(
    [glm_chats.BEGIN, glm_chats.IMAGE, glm_chats.END]
  )
  side = 28
  images = BaseImages(
    ImageOptions(
      side,
      HALF,
      HALF,
      form="glm4v",
      grid=1,
      min_pixels=8 * side**2,
      max_pixels=40 * side**2,
      rotate=True,
    ),
    ImageTokens(image, (begin,), (end,), templated=True),
  )
  return make_encoder(name, tokenizer, images, 4096, **options)


def make_processor(encoder):
  options = encoder.images.options
  bounds = {"shortest_edge": options.min_pixels, "longest_edge": options.max_pixels}
  images = transformers.models.glm4v.Glm4vImageProcessorPil(size=bounds)
  source = encoder.tokenizer.chat_template
  return Glm4vProcessor(images, encoder.tokenizer, chat_template=source)


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("row", VALUES)
def test_tokens_are_the_processor_s_and_the_one_that_stops(row, system):
  values, sizes = VALUES[row], sizes_of(VALUES[row])
  encoder = make(system=system)
  sample = encoder.encode(talk(*values), sizes)
  chat = make_messages(values, None, listed=True, leads=False)
  if system:
    parts = [{"type": "text", "text": system}]
    chat = [{"role": "system", "content": parts}, *chat]
  wanted = list(ask_processor(make_processor(encoder), chat, sizes))
  user = encoder.tokenizer.convert_tokens_to_ids("<|user|>")
  assert sample.tokens.tolist() == [*wanted, user]
  for image, size in zip(sample.images, sizes, strict=True):
    assert image.layout == encoder.images.lay_out(*size)
  for turn, answer in enumerate(values[1::2]):
    learned = sample.tokens[sample.turns == turn].tolist()
    assert encoder.tokenizer.decode(learned) == f"{answer}<|user|>"
  np.testing.assert_array_equal(sample.supervised, sample.turns >= 0)


def test_a_prompt_is_what_the_processor_asks_with():
  encoder = make()
  question, sizes = "is <image> like <image> or <image>?", SIZES[:3]
  prompt = encoder.prompt(question, sizes)
  chat = make_messages([question], None, listed=True, leads=False)
  wanted = ask_processor(
    make_processor(encoder), chat, sizes, add_generation_prompt=True
  )
  assert prompt.tokens.tolist() == list(wanted)


def test_an_answer_ends_with_the_next_question():
  encoder = make()
  user, other = encoder.tokenizer.convert_tokens_to_ids(["<|user|>", "<|image|>"])
  assert encoder.answers.ends[0] == user and encoder.answers.stops
  ids = encoder.tokenizer("a star")["input_ids"]
  assert encoder.answers.read(np.array([*ids, user, other])) == "a star"
  assert template_source.make_chat_template(encoder) == (None, True)


def test_marks_in_a_text_stay_text():
  encoder = make()
  question = f"{''.join(MARKS)} <image> {' '.join(glm_chats.ROLES)} <sop>?"
  sample = encoder.encode(talk(question, f"a {glm_chats.IMAGE}"), SIZES[:1])
  plain = encoder.encode(talk("<image> what?", "a star"), SIZES[:1])
  for name in (*MARKS, *glm_chats.ROLES, *glm_chats.START):
    token = encoder.tokenizer.convert_tokens_to_ids(name)
    counts = [(each.tokens == token).sum() for each in (sample, plain)]
    assert counts[0] == counts[1], name
