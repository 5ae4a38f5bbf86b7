"""Chats of Gemma 4 to tokens and pixels, against the family's processor."""

import numpy as np
import pytest
from transformers.models.gemma4.image_processing_pil_gemma4 import (
  get_aspect_ratio_preserving_size,
)

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.images.image_forms.gemma4_form import choose_grid
from mllm_selector_jax.data.tokens import template_source
from mllm_selector_jax.data.tokens.conversation import make_encoder
from mllm_selector_jax.types import ImageOptions, InputError
from tests.data.test_conversation import talk
from tests.data.test_image_forms import HALF, noise
from tests.data.test_native_chats import SIZES, VALUES, sizes_of
from tests.data.test_several_images import make_messages
from tests.gemma4_files import make_gemma_tokenizer, make_processor, read_tokens

COUNTS = (70, 140, 280)
OPTIONS = ImageOptions(
  6,
  HALF,
  HALF,
  resample=3,
  form="gemma4",
  grid=1,
  rotate=True,
  max_pixels=COUNTS[0] * 36,
  token_counts=COUNTS,
)


def make(name="auto", **options):
  tokenizer = make_gemma_tokenizer()
  images = BaseImages(OPTIONS, read_tokens(tokenizer))
  return make_encoder(name, tokenizer, images, 4096, **options)


def ask_processor(encoder, chat, sizes, source=None, **options):
  """What the processor makes of a conversation, from template to last token."""
  processor = make_processor(encoder.tokenizer, encoder.images.options)
  text = processor.apply_chat_template(chat, source, tokenize=False, **options)
  images = [[noise(*size) for size in sizes]] if sizes else None
  return processor(text=[text], images=images, add_special_tokens=False)


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_tokens_are_the_processors(system):
  encoder = make(system=system)
  for values in VALUES.values():
    sizes = sizes_of(values)
    sample = encoder.encode(talk(*values), sizes)
    chat = make_messages(values, None, listed=True, leads=False)
    if system:
      chat = [{"role": "system", "content": system}, *chat]
    found = ask_processor(encoder, chat, sizes)
    assert sample.tokens.tolist() == list(found["input_ids"][0])
    marked = np.array(found["mm_token_type_ids"][0]) == 1
    assert (marked == (sample.tokens == encoder.image_token)).all()


def test_prompts_are_the_processors():
  encoder = make()
  for question in ("<image>\nwhat is it?", "is <image> red or <image>?"):
    sizes = SIZES[: question.count("<image>")]
    prompt = encoder.prompt(question, sizes)
    chat = make_messages([question], None, listed=True, leads=False)
    wanted = ask_processor(encoder, chat, sizes, add_generation_prompt=True)
    assert prompt.tokens.tolist() == list(wanted["input_ids"][0])


def test_a_written_template_is_followed_by_the_processor():
  encoder = make("vicuna_v1")
  source, exact = template_source.make_chat_template(encoder)
  assert exact and "<|image|>" in source
  values = ("<image>\nwhat is it?", "a star", "and where?", "in two")
  sample = encoder.encode(talk(*values), SIZES[:1])
  chat = make_messages(values, None, listed=True, leads=True)
  found = ask_processor(encoder, chat, SIZES[:1], source)
  assert sample.tokens.tolist() == list(found["input_ids"][0])


def test_answers_and_their_ends_are_learned():
  encoder = make()
  sample = encoder.encode(talk("<image>\nwhat?", "a star", "and?", "two"), SIZES[:1])
  learned = encoder.tokenizer.decode(sample.tokens[sample.supervised])
  assert learned == "a star<turn|>two<turn|>"


def test_a_row_s_text_cannot_stand_for_an_image():
  encoder = make()
  text = "a <|image> and <|image|> <image|>"
  sample = encoder.encode(talk(text, "a star"))
  tokens = encoder.images.tokens
  assert not {tokens.image, *tokens.marks} & set(sample.tokens.tolist())
  assert text in encoder.tokenizer.decode(sample.tokens)


@pytest.mark.parametrize(
  "size", [(90, 60), (48, 48), (5, 150), (900, 7), (1, 1), (54, 42), (400, 300)]
)
def test_pixels_are_the_processors(size):
  encoder = make()
  image = noise(*size)
  processor = make_processor(encoder.tokenizer, encoder.images.options)
  found = processor.image_processor(image, do_rescale=False)
  layout = encoder.images.lay_out(*size)
  count = found["num_soft_tokens_per_image"][0]
  assert layout.tiles == len(layout.features) == count == len(layout.tokens) - 2
  rows, columns = layout.grid
  tiles = encoder.images.cut_tiles(image).reshape(rows, columns, 6, 6, 3)
  whole = tiles.swapaxes(1, 2).reshape(rows * 6, columns * 6, 3)
  places = found["image_position_ids"][0][: 9 * count]
  cut = whole.reshape(rows * 3, 2, columns * 3, 2, 3).swapaxes(1, 2)
  ours = cut[places[:, 1], places[:, 0]].reshape(9 * count, -1)
  np.testing.assert_array_equal(ours, found["pixel_values"][0][: 9 * count])


def test_grids_are_the_processors():
  rng = np.random.default_rng(0)
  sides = np.exp(rng.uniform(0, np.log(4000), (2000, 2))).astype(int)
  for width, height in sides.tolist():
    if max(width, height) > 200 * min(width, height):
      continue
    wanted = get_aspect_ratio_preserving_size(height, width, 2, 9 * COUNTS[0], 3)
    rows, columns = choose_grid(OPTIONS, width, height)
    assert (6 * rows, 6 * columns) == wanted


def test_pixels_are_limited_to_counts_that_the_processor_knows():
  images = BaseImages(OPTIONS, read_tokens(make_gemma_tokenizer()))
  wide = BaseImages(
    ImageOptions(**{**vars(OPTIONS), "max_pixels": COUNTS[2] * 36}), images.tokens
  )
  limited = BaseImages(wide.options, wide.tokens, resize_pixels=200 * 36).limited
  assert limited.max_pixels == COUNTS[1] * 36
  with pytest.raises(
    InputError, match=r"resize_pixels=2000: .* one of 70, 140, 280 to"
  ):
    BaseImages(wide.options, wide.tokens, resize_pixels=2000)
