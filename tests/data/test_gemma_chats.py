"""Chats of Gemma 3 and Gemma 4 to tokens, against the families' processors."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.tokens import template_source
from mllm_selector_jax.data.tokens.conversation import Encoder, make_encoder
from mllm_selector_jax.types import ImageOptions
from tests import gemma3_files, gemma4_files
from tests.data.test_conversation import talk
from tests.data.test_image_forms import HALF, noise
from tests.data.test_native_chats import SIZES, VALUES, sizes_of
from tests.data.test_several_images import make_messages


class Gemma(NamedTuple):
  """A family of Gemma.

  Attributes:
    files: the module that makes its tokenizer and its processor.
    options: of its images.
    types: what its processor says of each token, 1 for features of images.
    mark: by which its chat template says where an image is.
    parts: whether a text may be a list of one part.
  """

  files: Any
  options: ImageOptions
  types: str
  mark: str
  parts: bool

  def make(self, name: str = "auto", **options: Any) -> Encoder:
    """What turns a conversation into tokens."""
    tokenizer = self.files.make_gemma_tokenizer()
    images = BaseImages(self.options, self.files.read_tokens(tokenizer))
    return make_encoder(name, tokenizer, images, 4096, **options)

  def ask_processor(self, encoder, chat, sizes, source=None, **options) -> Any:
    """What the processor makes of a conversation, from template to last token."""
    processor = self.files.make_processor(encoder.tokenizer, encoder.images.options)
    text = processor.apply_chat_template(chat, source, tokenize=False, **options)
    images = [[noise(*size) for size in sizes]] if sizes else None
    return processor(text=[text], images=images, add_special_tokens=False)


GEMMA3 = Gemma(
  gemma3_files,
  ImageOptions(16, HALF, HALF, resample=2, form="stretched", grid=2, rotate=True),
  "token_type_ids",
  "<start_of_image>",
  parts=True,
)
COUNTS = (70, 140, 280)
GEMMA4 = Gemma(
  gemma4_files,
  ImageOptions(
    6,
    HALF,
    HALF,
    resample=3,
    form="gemma4",
    grid=1,
    rotate=True,
    max_pixels=COUNTS[0] * 36,
    token_counts=COUNTS,
  ),
  "mm_token_type_ids",
  "<|image|>",
  parts=False,
)
EACH = pytest.mark.parametrize("gemma", [GEMMA3, GEMMA4], ids=["3", "4"])


@EACH
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_tokens_are_the_processors(gemma, system, listed):
  encoder = gemma.make(system=system)
  for values in VALUES.values():
    sizes = sizes_of(values)
    if sizes and not listed:
      continue  # the template writes an image for a part of its own
    sample = encoder.encode(talk(*values), sizes)
    chat = make_messages(values, None, listed=listed, leads=False)
    if system:
      parts = listed and gemma.parts
      text = [{"type": "text", "text": system}] if parts else system
      chat = [{"role": "system", "content": text}, *chat]
    found = gemma.ask_processor(encoder, chat, sizes)
    assert sample.tokens.tolist() == list(found["input_ids"][0])
    marked = np.array(found[gemma.types][0]) == 1
    assert (marked == (sample.tokens == encoder.image_token)).all()


@EACH
def test_prompts_are_the_processors(gemma):
  encoder = gemma.make()
  for question in ("<image>\nwhat is it?", "is <image> red or <image>?"):
    sizes = SIZES[: question.count("<image>")]
    prompt = encoder.prompt(question, sizes)
    chat = make_messages([question], None, listed=True, leads=False)
    wanted = gemma.ask_processor(encoder, chat, sizes, add_generation_prompt=True)
    assert prompt.tokens.tolist() == list(wanted["input_ids"][0])


@EACH
@pytest.mark.parametrize("name", ["vicuna_v1", "llama-2"])
def test_a_written_template_is_followed_by_the_processor(gemma, name):
  encoder = gemma.make(name)
  source, exact = template_source.make_chat_template(encoder)
  assert exact and gemma.mark in source
  values = ("<image>\nwhat is it?", "a star", "and where?", "in two")
  sample = encoder.encode(talk(*values), SIZES[:1])
  chat = make_messages(values, None, listed=True, leads=True)
  found = gemma.ask_processor(encoder, chat, SIZES[:1], source)
  assert sample.tokens.tolist() == list(found["input_ids"][0])


@EACH
def test_answers_and_their_ends_are_learned(gemma):
  encoder, end = gemma.make(), gemma.files.TURN[1]
  sample = encoder.encode(talk("<image>\nwhat?", "a star", "and?", "two"), SIZES[:1])
  learned = encoder.tokenizer.decode(sample.tokens[sample.supervised])
  assert learned == f"a star{end}two{end}"


@EACH
def test_a_row_s_text_cannot_stand_for_an_image(gemma):
  encoder, files = gemma.make(), gemma.files
  text = f"a {files.BEGIN} and {files.IMAGE_TOKEN} {files.END}"
  sample = encoder.encode(talk(text, "a star"))
  tokens = encoder.images.tokens
  assert not {tokens.image, *tokens.marks} & set(sample.tokens.tolist())
  assert text in encoder.tokenizer.decode(sample.tokens)
