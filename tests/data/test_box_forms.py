"""Boxes that records state, written as each family has them."""

import json
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.record_schemas import read_content
from mllm_selector_jax.data.tokens.box_forms import (
  AUTO,
  BOX_FORMS,
  FAMILIES,
  BoxWriter,
  choose_form,
)
from mllm_selector_jax.models.huggingface.model_families import FAMILIES as MODELS
from mllm_selector_jax.models.huggingface.model_families import PIXTRAL
from mllm_selector_jax.types import ImageOptions, ImageTokens, Record, RowError

HALF = (0.5, 0.5, 0.5)
TILED = ImageOptions(8, HALF, HALF, form="internvl", grid=2, max_tiles=4)
ASKED = "<image>Where is the <ref-object>?"


def make_writer(name, options=TILED, **limits):
  form = None if name is None else BOX_FORMS[name]
  return BoxWriter(form, BaseImages(options, ImageTokens(3), **limits))


def make_content(boxes, answer=None, names=("dog",), images=1, **objects):
  value = {
    "images": [f"{number}.png" for number in range(images)],
    "query": images * "<image>" + "Where is the <ref-object>?",
    "response": answer or len(boxes) * "<bbox>",
    "objects": {"ref": list(names), "bbox": boxes, **objects},
  }
  return read_content(Record(0, 0, value))


def write(name, boxes, size=(640, 428), limits=None, **objects):
  """The question and the answer of a record with these boxes."""
  writer = make_writer(name, **(limits or {}))
  turns = writer.write(make_content(boxes, **objects), [size])
  return [turn["value"] for turn in turns]


# The box of Qwen's own example of how to convert boxes, of an image of 640 x 428.
BOX, POINT = [146, 137, 615, 415], [320, 107]


@pytest.mark.parametrize(
  ("name", "asked", "box", "point"),
  [
    (
      "qwen2",
      "<|object_ref_start|>dog<|object_ref_end|>",
      "<|box_start|>(228,320),(961,970)<|box_end|>",
      "<|box_start|>(500,250)<|box_end|>",
    ),
    ("qwen2.5", "dog", "[146, 137, 615, 415]", "[320, 107]"),
    ("qwen3", "dog", "[228, 320, 961, 970]", "[500, 250]"),
    (
      "qwen2.5-marks",
      "<|object_ref_start|>dog<|object_ref_end|>",
      "<|box_start|>(146,137),(615,415)<|box_end|>",
      "<|box_start|>(320,107)<|box_end|>",
    ),
    (
      "internvl",
      "<ref>dog</ref>",
      "<box>[[228, 320, 961, 970]]</box>",
      "<box>[[500, 250]]</box>",
    ),
    # Padded to 640 x 640, with 106 lines above.
    ("llava", "dog", "[0.23, 0.38, 0.96, 0.81]", "[0.5, 0.33]"),
  ],
)
def test_each_form(name, asked, box, point):
  question, answer = write(name, [BOX, POINT], answer='{"a": <bbox>, "b": <bbox>}')
  assert question == f"<image>Where is the {asked}?"
  assert answer == f'{{"a": {box}, "b": {point}}}'


def test_every_family_has_a_form_that_exists():
  assert set(FAMILIES.values()) <= set(BOX_FORMS)
  unknown = {"llava_onevision", "vipllava", PIXTRAL, "mistral3", "idefics3", "smolvlm"}
  unknown |= {"gemma3", "gemma4", "glm4v", "glm46v", "qwen3_5"}
  models = {*MODELS, PIXTRAL}
  assert models == set(FAMILIES) | unknown
  for family in models:
    form = choose_form(AUTO, family)
    assert (form is None) == (family in unknown)
    assert choose_form("qwen3", family) is BOX_FORMS["qwen3"]


def test_names_and_boxes_are_taken_each_in_its_own_order():
  value = {
    "images": ["a.png"],
    "messages": [
      {"role": "system", "content": "Look for a <ref-object>."},
      {"role": "user", "content": "<image>At <bbox>?"},
      {"role": "assistant", "content": "A <ref-object> at <bbox>."},
      {"role": "user", "content": "And <bbox>?"},
      {"role": "assistant", "content": "A <ref-object>."},
    ],
    "objects": {"ref": ["a", "b", "c"], "bbox": [[1, 2], [3, 4], [5, 6]]},
  }
  content = read_content(Record(0, 0, value))
  turns = make_writer("qwen2.5").write(content, [(64, 64)])
  assert [turn["value"] for turn in turns] == [
    "Look for a a.", "<image>At [1, 2]?", "A b at [3, 4].", "And [5, 6]?", "A c."
  ]  # fmt: skip
  assert content.turns[0].text == "Look for a <ref-object>."  # is not changed itself


def test_a_box_is_of_the_image_that_it_names():
  content = make_content([[10, 10], [10, 10]], images=2, image_id=[1, 0])
  turns = make_writer("qwen3").write(content, [(100, 50), (20, 10)])
  assert turns[1]["value"] == "[500, 1000][100, 200]"


def test_pixels_are_those_of_the_image_as_it_is_resized():
  limits = {"resize_pixels": 640 * 428 // 4}
  assert write("qwen2.5", [BOX], limits=limits)[1] == "[73, 68, 308, 208]"
  for name in ("qwen2", "qwen3", "internvl", "llava"):
    assert write(name, [BOX], limits=limits) == write(name, [BOX])


def test_what_exceeds_the_image_by_a_rounding_is_cut_off():
  assert write("qwen2.5", [[-0.5, 0, 641, 428.5]])[1] == "[0, 0, 639, 427]"
  assert write("qwen3", [[-0.5, 0, 641, 428.5]])[1] == "[0, 0, 1000, 1000]"
  assert write("llava", [[-0.5, 0, 640.5, 428]])[1] == "[0.0, 0.17, 1.0, 0.83]"


@pytest.mark.parametrize("name", [name for name in BOX_FORMS])
@pytest.mark.parametrize(
  ("box", "kind"),
  [
    ([1, 2, 642, 4], "real"), ([1, -2], "real"), ([1, 430], "real"),
    ([10, 20], "norm1"), ([0.5, 1.2], "norm1"),
  ],
)  # fmt: skip
def test_a_box_outside_of_its_image_is_refused(name, box, kind):
  with pytest.raises(RowError, match="outside of its image of 640 x 428") as caught:
    write(name, [POINT if kind == "real" else [0.5, 0.5], box], bbox_type=kind)
  assert caught.value.reason == "boxes" and "box 1" in caught.value.detail


def test_a_family_without_a_form_says_so():
  with pytest.raises(RowError) as caught:
    write(None, [BOX])
  assert caught.value.reason == "box form"
  plain = read_content(Record(0, 0, {"query": "A <bbox>?", "response": "b"}))
  assert make_writer(None).write(plain, []) == plain.conversations


@st.composite
def boxed(draw):
  """The size of an image, and a box inside it in shares of the sides."""
  size = draw(st.tuples(*[st.integers(8, 4000)] * 2))
  shares = draw(st.tuples(*[st.floats(0, 1, width=32)] * 4))
  return size, shares


def numbers_of(text):
  return [float(n) for n in json.loads(text)]


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(drawn=boxed(), times=st.integers(2, 5))
def test_coordinates_lead_back_to_the_box(drawn, times):
  (width, height), shares = drawn
  left, right = sorted(shares[::2])
  top, lower = sorted(shares[1::2])
  wanted = np.array([left * width, top * height, right * width, lower * height])
  sides = np.array([width, height] * 2)
  box = wanted.tolist()
  hypothesis.assume(max(box) > 1)  # others look like shares, and are refused
  thousandths = numbers_of(write("qwen3", [box], (width, height))[1])
  assert (
    np.abs(np.array(thousandths) * sides / 1000 - wanted).max() <= max(sides) / 2000
  )
  pixels = numbers_of(write("qwen2.5", [box], (width, height))[1])
  assert np.abs(np.array(pixels) - wanted).max() <= 1
  assert all(0 <= n < side for n, side in zip(pixels, sides, strict=True))
  shown = np.array(numbers_of(write("llava", [box], (width, height))[1]))
  square = max(width, height)
  margins = np.array([(square - width) // 2, (square - height) // 2] * 2)
  assert np.abs(shown * square - margins - wanted).max() <= square * 0.00501
  # Shares, or an image and a box that are larger together, are written alike.
  norm = write("qwen3", [[left, top, right, lower]], (width, height), bbox_type="norm1")
  larger = write("qwen3", [(wanted * times).tolist()], (width * times, height * times))
  for other in norm[1], larger[1]:
    # A number half-way between two is rounded to either.
    assert np.abs(np.array(numbers_of(other)) - thousandths).max() <= 1


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(drawn=boxed(), pixels=st.integers(64, 1 << 20))
def test_pixels_follow_the_limit_of_pixels(drawn, pixels):
  size, shares = drawn
  writer = make_writer("qwen2.5", resize_pixels=pixels)
  seen = writer.images.see_size(*size)
  content = make_content([list(shares)], bbox_type="norm1")
  found = numbers_of(writer.write(content, [size])[1]["value"])
  left, right = sorted(shares[::2])
  top, lower = sorted(shares[1::2])
  for number, share, side in zip(
    found, (left, top, right, lower), seen * 2, strict=True
  ):
    assert abs(number - share * side) <= 1 and 0 <= number < side
  assert (seen == size) == (math.prod(size) <= pixels)


NATIVE = ImageOptions(
  28, HALF, HALF, form="native", grid=1, min_pixels=3136, max_pixels=1_003_520, window=4
)


def test_pixels_are_those_of_qwens_own_converter():
  """The figures are those that Qwen's `process_bbox.ipynb` gives for its example."""
  writer = make_writer("qwen2.5", NATIVE)
  turns = writer.write(make_content([BOX]), [(640, 428)])
  assert turns[1]["value"] == "[147, 134, 619, 407]"
  writer = make_writer("qwen2", NATIVE)
  turns = writer.write(make_content([BOX]), [(640, 428)])
  assert turns[1]["value"] == "<|box_start|>(228,320),(961,970)<|box_end|>"


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(
  drawn=boxed(), most=st.one_of(st.none(), st.integers(40_000, 1_000_000))
)
def test_pixels_follow_the_size_of_transformers(drawn, most):
  size, shares = drawn
  hypothesis.assume(max(size) <= 200 * min(size))
  bound = NATIVE.max_pixels if most is None else most
  height, width = smart_resize(*size[::-1], 28, NATIVE.min_pixels, bound)
  writer = make_writer("qwen2.5", NATIVE, resize_pixels=most)
  assert writer.images.see_size(*size) == (max(28, width), max(28, height))
  hypothesis.assume(min(width, height) > 0)
  content = make_content([list(shares)], bbox_type="norm1")
  found = numbers_of(writer.write(content, [size])[1]["value"])
  left, right = sorted(shares[::2])
  top, lower = sorted(shares[1::2])
  sides = (width, height) * 2
  wanted = [
    min(max(round(share * side), 0), side - 1)
    for share, side in zip((left, top, right, lower), sides, strict=True)
  ]
  # By way of the image's own pixels, a number half-way between two may be the other.
  assert np.abs(np.array(found) - wanted).max() <= 1
  assert sum(a != b for a, b in zip(found, wanted, strict=True)) <= 1


SPELLED = (
  '{"bbox_2d": [135, 114, 1016, 672]}',
  "<|box_start|>(432,991),(111,207)<|box_end|>",
  "at (10,20),(30,40)",
  "[0.5, 0.25, 0.75, 1]",
)
OTHER = (
  "no box",
  "[1, 2]",
  "f(1, 2)",
  "[1] [2] [3] [4]",
  "(1,2) (3,4)",
  "[1, 2, a, 4]",
)


@pytest.mark.parametrize("text", [*SPELLED, *OTHER])
def test_boxes_in_text_are_told_where_the_image_is_resized(text):
  value = {"images": ["a.png"], "query": "<image>Where?", "response": text}
  content, sizes = read_content(Record(0, 0, value)), [(640, 428)]
  smaller = {"resize_pixels": 1000}
  off = make_writer("qwen2.5", **smaller)
  assert off.write(content, sizes)[1]["value"] == text
  native = make_writer("qwen2.5", NATIVE)
  assert native.is_off(content, sizes) == (text in SPELLED)
  assert not native.is_off(content, [(644, 420)])
  assert off.is_off(content, sizes) == (text in SPELLED)
  assert not off.is_off(content, [(10, 10)])
  assert not make_writer("qwen2.5").is_off(content, sizes)
  assert not make_writer("qwen3", **smaller).is_off(content, sizes)
  assert not make_writer(None, **smaller).is_off(content, sizes)
  stated = make_content([BOX], answer=f"{text} <bbox>")
  assert not off.is_off(stated, sizes)
