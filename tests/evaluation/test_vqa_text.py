"""VQA's spelling of answers, by worked examples and what must not matter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.evaluation import vqa_text


@pytest.mark.parametrize(
  "text, normal",
  [
    ("The Dog", "dog"),
    ("an apple a day", "apple day"),
    ("two", "2"),
    ("None", "0"),
    ("ten.", "10"),
    ("3.5", "3.5"),
    ("3. floor", "3 floor"),
    ("U.S.A", "usa"),
    ("1,000", "1000"),  # a comma between digits deletes marks
    ("red/blue", "red blue"),  # a mark between letters splits
    ("red, blue", "red blue"),  # a mark at a space goes
    ("yes!", "yes"),
    ("x-ray", "x ray"),
    ("it's", "it's"),
    ("dont", "don't"),
    ("Couldnt've", "couldn't've"),
    ("what\nis\tit", "what is it"),
    ("the", ""),
  ],
)
def test_vqa_normalisation(text, normal):
  assert vqa_text.normalise_vqa(text) == normal


@given(st.text(max_size=20))
def test_vqa_normalisation_drops_outer_spaces_and_articles(text):
  words = vqa_text.normalise_vqa(text).split(" ")
  assert not set(words) & vqa_text.ARTICLES
  assert vqa_text.normalise_vqa(f"  {text}\n") == vqa_text.normalise_vqa(text)


@pytest.mark.parametrize(
  "text, normal",
  [
    ("Dog's", "dog 's"),
    ("yes, sir?", "yes sir"),
    ("1,000", "1000"),
    ("red/blue", "red blue"),
    ("The\ntwo", "2"),
  ],
)
def test_textvqa_normalisation(text, normal):
  assert vqa_text.normalise_textvqa(text) == normal
