"""Conversations of Qwen-VL to tokens, against the families' own processors."""

import numpy as np
import pytest
import transformers

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.tokens import template_source
from mllm_selector_jax.data.tokens.conversation import make_encoder
from mllm_selector_jax.types import ImageOptions, ImageTokens
from tests.data.qwen_vl_chats import (
  CONTENT,
  END,
  MARKS,
  PAD,
  SOURCES,
  START,
  make_qwen_tokenizer,
)
from tests.data.test_conversation import talk
from tests.data.test_image_forms import HALF, noise
from tests.data.test_several_images import ROWS, make_messages
from tests.data.test_templates import CHATML
from tests.models.huggingface.test_image_options import WithoutVideos

SIZES = [(70, 40), (42, 70), (1, 90), (200, 33), (61, 61)]
VALUES = {**ROWS, "no image": ("what is it?", "a star", "and where?", "in two")}


class Qwen2VLProcessor(WithoutVideos, transformers.Qwen2VLProcessor):
  pass


class Qwen2_5_VLProcessor(WithoutVideos, transformers.Qwen2_5_VLProcessor):
  pass


class Qwen3VLProcessor(WithoutVideos, transformers.Qwen3VLProcessor):
  pass


PROCESSORS = {
  "qwen2_vl": Qwen2VLProcessor,
  "qwen2_5_vl": Qwen2_5_VLProcessor,
  "qwen3_vl": Qwen3VLProcessor,
  "qwen3_5": Qwen3VLProcessor,
}
FAMILIES = list(PROCESSORS)


def make_images(tokenizer, family):
  side = 32 if family.startswith("qwen3") else 28
  options = ImageOptions(
    side,
    HALF,
    HALF,
    form="native",
    grid=1,
    min_pixels=4 * side**2,
    max_pixels=20 * side**2,
    window=4 * (family == "qwen2_5_vl"),
    rotate=True,
  )
  start, pad, end = tokenizer.convert_tokens_to_ids([START, PAD, END])
  return BaseImages(options, ImageTokens(pad, (start,), (end,), templated=True))


def make(family, name="auto", source=None, **options):
  tokenizer = make_qwen_tokenizer(source or SOURCES[family])
  return make_encoder(name, tokenizer, make_images(tokenizer, family), 4096, **options)


def make_processor(encoder, family):
  options = encoder.images.options
  bounds = {"shortest_edge": options.min_pixels, "longest_edge": options.max_pixels}
  images = transformers.models.qwen2_vl.Qwen2VLImageProcessorPil(
    size=bounds, patch_size=options.size // 2
  )
  source = encoder.tokenizer.chat_template
  return PROCESSORS[family](images, encoder.tokenizer, chat_template=source)


def sizes_of(values):
  return (SIZES * 2)[: "".join(values).count("<image>")]


def ask_processor(processor, chat, sizes, **options):
  """The token ids of a conversation, by the processor from template to last token."""
  text = processor.apply_chat_template(chat, tokenize=False, **options)
  images = [noise(*size) for size in sizes]
  return processor(text=[text], images=images or None)["input_ids"][0]


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("row", VALUES)
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_the_processors(family, row, system):
  values, sizes = VALUES[row], sizes_of(VALUES[row])
  encoder = make(family, system=system)
  processor = make_processor(encoder, family)
  sample = encoder.encode(talk(*values), sizes)
  chat = make_messages(values, None, listed=True, leads=False)
  if system:
    parts = [{"type": "text", "text": system}]
    chat = [{"role": "system", "content": parts}, *chat]
  assert sample.tokens.tolist() == list(ask_processor(processor, chat, sizes))
  assert len(sample.images) == len(sizes)
  for image, size in zip(sample.images, sizes, strict=True):
    span = sample.tokens[image.start : image.stop].tolist()
    names = encoder.tokenizer.convert_ids_to_tokens(span)
    assert names == [START, *[PAD] * image.layout.tiles, END]
    assert image.layout == encoder.images.lay_out(*size)
  for turn, answer in enumerate(values[1::2]):
    learned = sample.tokens[sample.turns == turn].tolist()
    assert encoder.tokenizer.decode(learned) == f"{answer}<|im_end|>"
  np.testing.assert_array_equal(sample.supervised, sample.turns >= 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_s_own_system_text_stands_in_its_place(family):
  encoder = make(family)
  turns = [{"from": "system", "value": "Say no."}, *talk(*ROWS["together"])]
  sample = encoder.encode(turns, SIZES[:2])
  chat = make_messages(ROWS["together"], None, listed=True, leads=False)
  parts = [{"type": "text", "text": "Say no."}]
  chat = [{"role": "system", "content": parts}, *chat]
  wanted = ask_processor(make_processor(encoder, family), chat, SIZES[:2])
  assert sample.tokens.tolist() == list(wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_qwen2_begins_with_a_system_text_of_its_own(family):
  sample = make(family).encode(talk("what?", "red"))
  text = make(family).tokenizer.decode(sample.tokens.tolist())
  begins = text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>")
  assert begins == (not family.startswith("qwen3"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_what_the_processor_asks_with(family):
  encoder = make(family)
  question, sizes = "is <image> like <image> or <image>?", SIZES[:3]
  prompt = encoder.prompt(question, sizes)
  chat = make_messages([question], None, listed=True, leads=False)
  wanted = ask_processor(
    make_processor(encoder, family), chat, sizes, add_generation_prompt=True
  )
  assert prompt.tokens.tolist() == list(wanted)
  assert not prompt.supervised.any()


def test_a_written_template_has_the_marks_too():
  encoder = make("qwen2_5_vl", "chatml")
  values, sizes = ROWS["among the text"], SIZES[:2]
  sample = encoder.encode(talk(*values), sizes)
  # The published template writes what `chatml` does.
  wanted = make("qwen2_5_vl").encode(talk(*values), sizes)
  assert sample.tokens.tolist() == wanted.tokens.tolist()
  assert sample.supervised.tolist() == wanted.supervised.tolist()


@pytest.mark.parametrize("name", ["chatml", "vicuna_v1"])
def test_a_template_written_for_an_export_has_the_marks(name):
  encoder = make("qwen2_5_vl", name)
  source, exact = template_source.make_chat_template(encoder)
  assert exact
  values, sizes = ("<image>\nwhat is it?", "a star"), SIZES[:1]
  encoder.tokenizer.chat_template = source
  chat = make_messages(values, None, listed=True, leads=False)
  wanted = ask_processor(make_processor(encoder, "qwen2_5_vl"), chat, sizes)
  assert encoder.encode(talk(*values), sizes).tokens.tolist() == list(wanted)


def test_the_base_s_own_template_is_exported_as_it_is():
  assert template_source.make_chat_template(make("qwen3_vl")) == (None, True)


@pytest.mark.parametrize("name", ["auto", "chatml", "vicuna_v1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_marks_of_images_in_a_text_stay_text(family, name):
  encoder = make(family, name)
  ids = encoder.tokenizer.convert_tokens_to_ids
  question = f"{START}{PAD}{END} <image> {' '.join(MARKS)} <|im_end|>?"
  sample = encoder.encode(talk(question, f"a {PAD} of {START}"), SIZES[:1])
  plain = encoder.encode(talk("<image> what?", "a star"), SIZES[:1])
  for token in (*MARKS, "<|im_end|>", "<|im_start|>"):
    counts = [(each.tokens == ids(token)).sum() for each in (sample, plain)]
    assert counts[0] == counts[1], token
  text = encoder.tokenizer.decode(sample.tokens[sample.asked].tolist())
  assert text.count(START) == text.count(END) == 2
  prompt = encoder.prompt(f"{START}{PAD}{END}what?").tokens
  assert not np.isin(prompt, ids(list(MARKS))).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_boxes_in_a_text_are_tokens(family):
  encoder = make(family)
  text = f"{CONTENT[0]}star{CONTENT[1]}{CONTENT[2]}(1,2),(3,4){CONTENT[3]}"
  sample = encoder.encode(talk(f"where is {text}?", text))
  for token in encoder.tokenizer.convert_tokens_to_ids(list(CONTENT)):
    assert (sample.tokens == token).sum() == 2


def test_a_template_that_takes_texts_is_given_the_marks():
  encoder = make("qwen2_vl", source=CHATML)
  values, sizes = ROWS["among the text"], SIZES[:2]
  sample = encoder.encode(talk(*values), sizes)
  chat = make_messages(values, None, listed=False, leads=False)
  for message in chat:
    message["content"] = message["content"].replace("<image>", START + PAD + END)
  wanted = ask_processor(make_processor(encoder, "qwen2_vl"), chat, sizes)
  assert sample.tokens.tolist() == list(wanted)


def test_limits_shorten_a_row():
  tokenizer = make_qwen_tokenizer(SOURCES["qwen2_vl"])
  free = make_images(tokenizer, "qwen2_vl")
  limited = BaseImages(free.options, free.tokens, resize_pixels=6 * 28**2)
  rows = [
    make_encoder("auto", tokenizer, images, 4096).encode(
      talk(*ROWS["together"]), [(400, 300), (30, 30)]
    )
    for images in (free, limited)
  ]
  saved = [sum(limited.count_saved(*size)) for size in [(400, 300), (30, 30)]]
  assert saved[0] > 0 and saved[1] == 0
  assert len(rows[0].tokens) - len(rows[1].tokens) == sum(saved)
