"""Questions of several images to tokens, against LLaVA's way and transformers'.

The oracles tokenise the text as LLaVA's code or transformers' chat rendering does, with
one token for each image, and put what the image becomes in its place.
"""

import numpy as np
import pytest

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.tokens.conversation import TEMPLATES, make_encoder
from mllm_selector_jax.types import ImageOptions, ImageTokens, RowError
from tests.data.test_conversation import VICUNA, talk
from tests.data.test_templates import SOURCES
from tests.llama_like import make_tokenizer

IMAGE = 3  # the id of <image>
MARKS = ImageTokens(IMAGE, begin=(300, 301), end=(302,))
HALF = (0.5, 0.5, 0.5)
PINPOINTS = ((8, 16), (16, 8), (16, 16))  # height and width
INTERNVL = ImageOptions(8, HALF, HALF, form="internvl", grid=2, max_tiles=4)
NEXT = ImageOptions(8, HALF, HALF, form="anyres", grid=2, pinpoints=PINPOINTS)
ONEVISION = ImageOptions(
  8, HALF, HALF, form="anyres", grid=2, pinpoints=PINPOINTS, tile_several=False
)
SQUARE = ImageOptions(8, HALF, HALF, grid=2)
SIZES = [(16, 8), (8, 8), (32, 32), (8, 16)]  # width and height, of images in turn
# By the size of an image: its tiles and its features. A tile has 2 x 2 features.
COUNTS = {
  "square": dict.fromkeys(SIZES, (1, 4)),
  # A grid of tiles of the image's shape, and a thumbnail if there are several.
  "internvl": {
    (16, 8): (2 + 1, 12), (8, 8): (1, 4), (32, 32): (4 + 1, 20), (8, 16): (2 + 1, 12)
  },
  # The whole image, and a map each of whose lines ends with a newline.
  "next": {
    (16, 8): (1 + 2, 4 + 2 * 5), (8, 8): (1 + 2, 4 + 2 * 3),
    (32, 32): (1 + 4, 4 + 4 * 5), (8, 16): (1 + 2, 4 + 4 * 3),
  },
  # Of several images each is one square, with a newline at its end.
  "onevision": dict.fromkeys(SIZES, (1, 4 + 1)),
}  # fmt: skip
FORMS = {
  "square": SQUARE, "internvl": INTERNVL, "next": NEXT, "onevision": ONEVISION
}  # fmt: skip
ROWS = {
  "together": ("<image>\n<image>\nwhich is red?", "the first"),
  "among the text": ("is <image> like <image>?", "no"),
  "at both ends": ("<image> or <image>", "the second"),
  "side by side": ("<image><image>what is it?", "two stars"),
  "marks alone": ("<image><image>", "a red circle"),
  "at the end": ("what colour are they?\n<image>\n<image>", "red"),
  "in two turns": ("<image>\nwhat is it?", "a star", "<image>\nand here?", "a circle"),
  "several in several turns": (
    "<image>\n<image>\nare they one?", "no", "why?", "so",
    "and <image>, <image>?", "yes",
  ),
  "after text": ("is it a star?", "no", "what of <image> and <image>?", "one"),
}  # fmt: skip


def make(form="square", name="vicuna_v1", kind="bytes", source=None, max_length=10_000):
  tokenizer = make_tokenizer(kind, begins=name == "vicuna_v1")
  tokenizer.chat_template = source
  images = BaseImages(FORMS[form], MARKS)
  return make_encoder(name, tokenizer, images, max_length)


def sizes_of(values):
  """A size for each mark, in turn."""
  return (SIZES * 2)[: "".join(values).count("<image>")]


def expand(ids, mask, form, sizes):
  """Puts the images into a row that has one token for each."""
  sizes, out, learned = iter(sizes), [], []
  for token, is_learned in zip(ids, mask, strict=True):
    piece = [token]
    if token == IMAGE:
      features = COUNTS[form][next(sizes)][1]
      piece = [*MARKS.begin, *[IMAGE] * features, *MARKS.end]
    out += piece
    learned += [is_learned] * len(piece)
  assert next(sizes, None) is None
  return out, learned


def place_lead(question, leads=True):
  """The question with its mark first if it has a single one, as LLaVA-NeXT's code."""
  if question.count("<image>") != 1 or not leads:
    return question
  return f"<image>\n{question.replace('<image>', '').strip()}".strip()


def vicuna_oracle(tokenizer, values, leads):
  """LLaVA's row: the chunks between images are tokenised each on its own."""
  text = f"{VICUNA.system} "
  for question, answer in zip(values[::2], values[1::2], strict=True):
    text += f"USER: {place_lead(question, leads)} ASSISTANT: {answer}</s>"
  ids = [tokenizer.bos_token_id]
  for place, chunk in enumerate(text.split("<image>")):
    ids += [IMAGE] * (place > 0) + tokenizer(chunk, add_special_tokens=False).input_ids
  return ids


def make_messages(values, system, listed, leads):
  """A conversation as transformers takes it, images in parts of their own or not."""
  chat = [{"role": "system", "content": system}] if system else []
  for place, value in enumerate(values):
    role = ("user", "assistant")[place % 2]
    content = place_lead(value, leads) if role == "user" else value
    if listed:
      parts = []
      for number, text in enumerate(content.split("<image>")):
        parts += [{"type": "image"}] * (number > 0)
        text = text.strip("\n")
        parts += [{"type": "text", "text": text}] if text else []
      content = parts
    chat.append({"role": role, "content": content})
  return chat


def chat_oracle(tokenizer, source, chat):
  """Ids and mask as transformers has them."""
  found = tokenizer.apply_chat_template(
    chat, chat_template=source, return_dict=True, return_assistant_tokens_mask=True
  )
  return found["input_ids"], [bool(learned) for learned in found["assistant_masks"]]


def assert_images(sample, form, sizes):
  """The images stand where their tokens are, in the order of the sizes."""
  begins = np.flatnonzero(sample.tokens == MARKS.begin[0])
  assert [image.start for image in sample.images] == begins.tolist()
  layouts = [image.layout for image in sample.images]
  found = [(layout.tiles, len(layout.features)) for layout in layouts]
  assert found == [COUNTS[form][size] for size in sizes]
  for image in sample.images:
    span = slice(image.start, image.stop)
    np.testing.assert_array_equal(sample.tokens[span], image.layout.tokens)
    assert not sample.supervised[span].any() and not sample.asked[span].any()


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("kind", ["bytes", "first", "always", "normalizer"])
def test_vicuna_is_llavas(kind, row):
  values, sizes = ROWS[row], sizes_of(ROWS[row])
  encoder = make(kind=kind)
  sample = encoder.encode(talk(*values), sizes)
  ids = vicuna_oracle(encoder.tokenizer, values, leads=True)
  assert sample.tokens.tolist() == expand(ids, [0] * len(ids), "square", sizes)[0]
  assert_images(sample, "square", sizes)
  for turn, answer in enumerate(values[1::2]):
    learned = sample.tokens[sample.turns == turn].tolist()
    assert encoder.tokenizer.decode(learned).strip() == f"{answer}</s>"


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("form", ["internvl", "next", "onevision"])
def test_images_of_each_size_become_their_own_tokens(form, row):
  values, sizes = ROWS[row], sizes_of(ROWS[row])
  leads = form != "internvl"
  encoder = make(form)
  sample = encoder.encode(talk(*values), sizes)
  ids = vicuna_oracle(encoder.tokenizer, values, leads)
  assert sample.tokens.tolist() == expand(ids, [0] * len(ids), form, sizes)[0]
  assert_images(sample, form, sizes)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", ["chatml", "chat", "chat listed"])
def test_chats_are_what_transformers_renders(layout, form, row):
  values, sizes = ROWS[row], sizes_of(ROWS[row])
  listed = layout == "chat listed"
  source = SOURCES["listed" if listed else "chatml"]
  name = "chatml" if layout == "chatml" else "chat"
  encoder = make(form, name, "qwen", source if name == "chat" else None)
  sample = encoder.encode(talk(*values), sizes)
  system = TEMPLATES["chatml"].system if name == "chatml" else None
  chat = make_messages(values, system, listed, leads=form != "internvl")
  ids, mask = chat_oracle(encoder.tokenizer, source, chat)
  tokens, learned = expand(ids, mask, form, sizes)
  assert sample.tokens.tolist() == tokens
  assert sample.supervised.tolist() == learned
  assert_images(sample, form, sizes)


def test_an_only_image_of_a_row_is_cut_where_one_of_several_is_not():
  encoder = make("onevision")
  one = encoder.encode(talk("<image>\nwhat is it?", "a star"), [(16, 8)])
  assert [image.layout.tiles for image in one.images] == [1 + 2]
  assert (one.tokens == IMAGE).sum() == 4 + 2 * 5


def test_a_mark_inside_a_question_stays_there_where_the_form_says_so():
  values, starts = ("what colour is <image> here?", "red"), []
  for form in ("internvl", "next"):
    encoder = make(form)
    sample = encoder.encode(talk(*values), [(8, 8)])
    ids = vicuna_oracle(encoder.tokenizer, values, leads=form == "next")
    tokens, _ = expand(ids, [0] * len(ids), form, [(8, 8)])
    assert sample.tokens.tolist() == tokens
    starts.append(sample.images[0].start)
  assert starts[0] > starts[1]


@pytest.mark.parametrize("form", ["square", "internvl"])
@pytest.mark.parametrize("layout", ["vicuna_v1", "chatml", "chat", "chat listed"])
def test_prompts_of_several_images_begin_their_rows(layout, form):
  source = SOURCES["listed" if layout == "chat listed" else "chatml"]
  name = layout.removesuffix(" listed")
  encoder = make(form, name, "qwen", source if name == "chat" else None)
  sizes = SIZES[:3]
  for marked in (
    "<image>\n<image>\n<image>\nwhich is red?", "is <image> like <image> or <image>?"
  ):  # fmt: skip
    sample = encoder.encode(talk(marked, "no"), sizes)
    prompt = encoder.prompt(marked, sizes)
    length = len(prompt.tokens)
    np.testing.assert_array_equal(sample.tokens[:length], prompt.tokens)
    assert sample.supervised.argmax() == length
    assert_images(prompt, form, sizes)
    starts = [image.start for image in sample.images]
    assert starts == [image.start for image in prompt.images]
  unmarked = encoder.prompt("which is red?", sizes)
  first = encoder.prompt("<image>\n<image>\n<image>\nwhich is red?", sizes)
  np.testing.assert_array_equal(unmarked.tokens, first.tokens)


@pytest.mark.parametrize(
  ("values", "images", "detail"),
  [
    (("<image><image>what?", "red"), 1, "2 <image> in the questions, one image"),
    (("<image><image>what?", "red"), 3, "2 <image> in the questions, 3 images"),
    (("<image>what?", "red", "<image>why?", "so"), 0, "2 <image> in .*no image"),
    (("<image>what?", "<image>"), 2, "stands in an answer"),
  ],
)
def test_marks_that_differ_from_the_images_in_number(values, images, detail):
  with pytest.raises(RowError, match=f"image marks: .*{detail}"):
    make().encode(talk(*values), SIZES[:images])


def test_a_prompt_with_another_number_of_marks_than_images():
  with pytest.raises(RowError, match="image marks: 2 <image>, 3 images"):
    make().prompt("<image> or <image>?", SIZES[:3])


def test_a_row_is_cut_behind_its_last_image_only():
  values, sizes = ROWS["in two turns"], SIZES[:2]
  whole = make("next").encode(talk(*values), sizes)
  stop = whole.images[-1].stop
  cut = make("next", max_length=stop).encode(talk(*values), sizes)
  assert cut.truncated and len(cut.images) == 2
  np.testing.assert_array_equal(cut.tokens, whole.tokens[:stop])
  with pytest.raises(RowError, match=f"too long: {stop:,} tokens with 2 images"):
    make("next", max_length=stop - 1).encode(talk(*values), sizes)


def test_many_rows_at_once_are_each_alone():
  encoder = make("internvl", "chatml", "qwen")
  rows = [(talk(*values), sizes_of(values)) for values in ROWS.values()]
  for row, together in zip(rows, encoder.encode_many(rows), strict=True):
    alone = encoder.encode(*row)
    np.testing.assert_array_equal(alone.tokens, together.tokens)
    np.testing.assert_array_equal(alone.turns, together.turns)
    np.testing.assert_array_equal(alone.asked, together.asked)
    starts = [[image.start for image in one.images] for one in (alone, together)]
    assert starts[0] == starts[1]


def test_the_text_among_images_is_asked():
  encoder = make()
  sample = encoder.encode(talk(*ROWS["among the text"]), SIZES[:2])
  asked = encoder.tokenizer.decode(sample.tokens[sample.asked].tolist())
  assert asked.split() == ["is", "like", "?"]
