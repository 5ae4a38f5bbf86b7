"""Captions: true, of the shared vocabulary, and without any question."""

import itertools
import json
import re

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.demo import caption_examples, captions, draw_captions, vocabulary
from mllm_selector_jax.demo.language import QUESTIONS, WORDS, tokens
from mllm_selector_jax.types import InputError

NUMBERS = ("zero", "one", "two", "three", "four")


def test_files_hold_what_the_generator_gives(tmp_path):
  seen = []
  assert draw_captions(tmp_path, 30, 5, lambda *n: seen.append(n))["rows"] == 30
  assert seen == [(30, 30)]
  records = json.loads((tmp_path / "captions.json").read_text())
  for record, (image, text) in zip(records, caption_examples(30, 5), strict=True):
    human, gpt = record["conversations"]
    assert human["value"].startswith("<image>\n")
    assert gpt == {"from": "gpt", "value": text}
    with Image.open(tmp_path / "images" / record["image"]) as stored:
      np.testing.assert_array_equal(np.array(stored), np.array(image))


def test_a_prefix_and_another_seed():
  def texts(rows, seed):
    return [text for _, text in caption_examples(rows, seed)]

  assert texts(40, 1)[:20] == texts(20, 1)
  assert texts(40, 1) != texts(40, 2)


def test_captions_vary_and_hold_no_question():
  words = set(vocabulary())
  made = [text for _, text in caption_examples(3000, 0)]
  assert len(set(made)) > 2000
  asked = [
    re.sub(r"\{\w+\}.*", "", wording).strip()
    for wordings in QUESTIONS.values()
    for wording in wordings
  ]
  asked = [start for start in asked if len(start.split()) > 2]
  for text in made:
    assert "?" not in text and text == text.lower()
    assert set(tokens(text)) <= words
    assert not any(start in text for start in asked), text
    assert "tallest" not in text and "shortest" not in text
  joined = " ".join(made)
  for topic in ("no ", "there are ", "in the top left", "low", "left of", *WORDS):
    assert topic in joined


def test_captions_are_true():
  checked = 0
  for scene, text in itertools.islice(captions.caption_scenes(3000, 1), 3000):
    if scene.source == "signs":
      told = [word for word in tokens(text) if word in WORDS]
      assert told in ([], [scene.word])
      continue
    if scene.source == "charts":
      heights = {bar.color: bar.value for bar in scene.bars}
      for color, height in re.findall(r"the (\w+) bar is (\w+)", text):
        levels = {"low": (1, 2), "high": (3, 4)}[height]
        assert heights[color] in levels
      continue
    pairs = [(thing.color, thing.shape) for thing in scene.things]
    shapes = [shape for _, shape in pairs]
    for sentence in text.split("."):
      words = tokens(sentence)
      missing = "no" in words
      for pair in itertools.pairwise(words):
        if pair[1] in shapes and pair[0] in {color for color, _ in pairs}:
          assert pair in pairs, text
          checked += 1
      if missing:
        thing = words[words.index("no") + 1]
        assert thing not in shapes
        assert thing not in [c for c, _ in pairs] or "object" not in words
        checked += 1
      for number, word in re.findall(r"\b(one|two|three|four) (\w+)", sentence):
        name = word if word == "cross" else re.sub(r"(?<=cross)es$|s$", "", word)
        count = len(shapes) if name == "object" else shapes.count(name)
        if word != "is":  # "the red one is a circle"
          assert NUMBERS[count] == number, text
          checked += 1
      for thing in scene.things:
        told = re.search(rf"{thing.color} {thing.shape} in the (top|bottom)", sentence)
        if told and pairs.count((thing.color, thing.shape)) == 1:
          assert thing.region.startswith(told[1])
          checked += 1
  assert checked > 2000


@pytest.mark.parametrize(("rows", "seed"), [(0, 0), (5, -1)])
def test_numbers_that_cannot_be(rows, seed):
  with pytest.raises(InputError, match="captions: rows"):
    next(caption_examples(rows, seed))
