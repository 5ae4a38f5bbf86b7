"""Chats of Gemma 3 to tokens and pixels, against the family's processor."""

import numpy as np
import pytest

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.packing import prefixes
from mllm_selector_jax.data.tokens import template_source
from mllm_selector_jax.data.tokens.conversation import make_encoder
from mllm_selector_jax.types import ImageOptions
from tests.data.test_conversation import talk
from tests.data.test_image_forms import HALF, noise
from tests.data.test_native_chats import SIZES, VALUES, sizes_of
from tests.data.test_several_images import make_messages
from tests.gemma3_files import make_gemma_tokenizer, make_processor, read_tokens


def make(name="auto", **options):
  tokenizer = make_gemma_tokenizer()
  images = ImageOptions(
    16, HALF, HALF, resample=2, form="stretched", grid=2, rotate=True
  )
  images = BaseImages(images, read_tokens(tokenizer))
  return make_encoder(name, tokenizer, images, 4096, **options)


def ask_processor(encoder, chat, sizes, source=None, **options):
  """What the processor makes of a conversation, from template to last token."""
  processor = make_processor(encoder.tokenizer, encoder.images.options)
  text = processor.apply_chat_template(chat, source, tokenize=False, **options)
  images = [[noise(*size) for size in sizes]] if sizes else None
  return processor(text=[text], images=images, add_special_tokens=False)


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_tokens_are_the_processors(system, listed):
  encoder = make(system=system)
  for values in VALUES.values():
    sizes = sizes_of(values)
    if sizes and not listed:
      continue  # the template writes an image for a part of its own
    sample = encoder.encode(talk(*values), sizes)
    chat = make_messages(values, None, listed=listed, leads=False)
    if system:
      text = [{"type": "text", "text": system}] if listed else system
      chat = [{"role": "system", "content": text}, *chat]
    found = ask_processor(encoder, chat, sizes)
    assert sample.tokens.tolist() == list(found["input_ids"][0])
    marked = np.array(found["token_type_ids"][0]) == 1
    assert (marked == (sample.tokens == encoder.image_token)).all()


def test_line_feeds_of_the_frame_and_of_an_image_are_one_token():
  encoder = make(system="Be brief.")
  sample = encoder.encode(talk("<image>\nwhat is it?", "a star"), SIZES[:1])
  (image,) = sample.images
  around = [sample.tokens[image.start - 1], sample.tokens[image.stop]]
  found = encoder.tokenizer.convert_ids_to_tokens(around)
  assert found == ["\n\n\n\n", "\n\n"]
  assert sample.asked[image.stop + 1] and not sample.asked[: image.stop + 1].any()


def test_prompts_are_the_processors():
  encoder = make()
  for question in ("<image>\nwhat is it?", "is <image> red or <image>?"):
    sizes = SIZES[: question.count("<image>")]
    prompt = encoder.prompt(question, sizes)
    chat = make_messages([question], None, listed=True, leads=False)
    wanted = ask_processor(encoder, chat, sizes, add_generation_prompt=True)
    assert prompt.tokens.tolist() == list(wanted["input_ids"][0])


@pytest.mark.parametrize("name", ["vicuna_v1", "llama-2"])
def test_a_written_template_is_followed_by_the_processor(name):
  encoder = make(name)
  source, exact = template_source.make_chat_template(encoder)
  assert exact and "<start_of_image>" in source
  values = ("<image>\nwhat is it?", "a star", "and where?", "in two")
  sample = encoder.encode(talk(*values), SIZES[:1])
  chat = make_messages(values, None, listed=True, leads=True)
  found = ask_processor(encoder, chat, SIZES[:1], source)
  assert sample.tokens.tolist() == list(found["input_ids"][0])


def test_answers_and_their_ends_are_learned():
  encoder = make()
  sample = encoder.encode(talk("<image>\nwhat?", "a star", "and?", "two"), SIZES[:1])
  learned = encoder.tokenizer.decode(sample.tokens[sample.supervised])
  assert learned == "a star<end_of_turn>two<end_of_turn>"


def test_a_row_s_text_cannot_stand_for_an_image():
  encoder = make()
  text = "a <start_of_image> and <image_soft_token> <end_of_image>"
  sample = encoder.encode(talk(text, "a star"))
  tokens = encoder.images.tokens
  assert not {tokens.image, *tokens.marks} & set(sample.tokens.tolist())
  assert text in encoder.tokenizer.decode(sample.tokens)


def test_a_beginning_that_rows_share_holds_images_whole():
  encoder = make()
  values = ("is <image>\nred or\n<image>\n?", "a star", "<image>\nand?", "two")
  sample = encoder.encode(talk(*values), sizes_of(values))
  found = prefixes.list_prefixes(sample, ["a", "b", "c"])
  assert len(found) == 3  # the third image follows an answer
  for prefix in found:
    cut = [image.start < prefix.tokens < image.stop for image in sample.images]
    assert not any(cut)


@pytest.mark.parametrize("size", [(90, 60), (16, 16), (5, 150), (1, 1), (33, 32)])
def test_pixels_are_the_processors(size):
  encoder = make()
  image = noise(*size)
  processor = make_processor(encoder.tokenizer, encoder.images.options)
  found = processor.image_processor(image, do_rescale=False, do_normalize=False)
  wanted = np.asarray(found["pixel_values"][0]).transpose(1, 2, 0)
  (tile,) = encoder.images.cut_tiles(image)
  np.testing.assert_array_equal(tile, wanted)
  layout = encoder.images.lay_out(*size)
  assert (layout.tiles, len(layout.features), len(layout.tokens)) == (1, 4, 6)
