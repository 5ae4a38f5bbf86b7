"""Metrics against worked examples of the published rules and slow oracles."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.evaluation import metrics

WORDS = st.text(alphabet="abc ", max_size=8)


@pytest.mark.parametrize(
  "prediction, answers, score",
  [
    ("Red ", ["red"], 1),
    ("red", ["blue", " RED"], 1),
    ("red.", ["red"], 0),  # no punctuation is dropped
    ("", ["red"], 0),
  ],
)
def test_exact_match(prediction, answers, score):
  assert metrics.exact_match(prediction, answers) == score


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
    ("couldn'tve", "couldn't've"),
    ("what\nis\tit", "what is it"),
    ("the", ""),
  ],
)
def test_vqa_normalisation(text, normal):
  assert metrics.normalise_vqa(text) == normal


@given(st.text(max_size=20))
def test_vqa_normalisation_drops_outer_spaces_and_articles(text):
  words = metrics.normalise_vqa(text).split(" ")
  assert not set(words) & metrics.ARTICLES
  assert metrics.normalise_vqa(f"  {text}\n") == metrics.normalise_vqa(text)


@pytest.mark.parametrize("agreeing", range(11))
def test_vqa_accuracy_of_ten_annotators(agreeing):
  answers = ["two"] * agreeing + [f"other{i}" for i in range(10 - agreeing)]
  # Leave one annotator out, ten times, as the rule is stated.
  marks = [
    min(1, sum(x == "two" for j, x in enumerate(answers) if j != i) / 3)
    for i in range(10)
  ]
  assert metrics.vqa_accuracy("2", answers) == pytest.approx(np.mean(marks))


def test_vqa_accuracy_knows_the_published_values():
  # 1, 2, 3 and 4 of ten agreeing give .3, .6, .9 and 1.
  for agreeing, value in (0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0):
    answers = ["cat"] * agreeing + ["dog"] * (10 - agreeing)
    assert metrics.vqa_accuracy("Cat", answers) == pytest.approx(value)
  assert metrics.vqa_accuracy("the cat", ["cat"]) == 1
  assert metrics.vqa_accuracy("dog", ["cat"]) == 0


@pytest.mark.parametrize(
  "prediction, answer, score",
  [
    ("105", "100", 1),
    ("105.1", "100", 0),
    ("95", "100", 1),
    ("-95", "-100", 1),
    ("50%", "0.5", 1),
    ("0.51", "50%", 1),
    ("0", "0", 1),
    ("0.0", "0", 0),  # an answer of 0 is compared as text
    ("0.01", "0", 0),
    ("Blue", "blue", 1),
    ("blue", "100", 0),
    ("nan", "100", 0),
    ("NaN", "nan", 1),
    ("100", "inf", 0),
    ("%", "%", 1),
  ],
)
def test_relaxed_accuracy(prediction, answer, score):
  assert metrics.relaxed_accuracy(prediction, [answer]) == score
  assert metrics.relaxed_accuracy(prediction, ["nothing like it", answer]) == score


@given(WORDS, WORDS)
def test_edit_distance_equals_its_recursive_definition(left, right):
  @functools.cache
  def distance(i, j):
    if not i or not j:
      return i + j
    return min(
      distance(i - 1, j) + 1,
      distance(i, j - 1) + 1,
      distance(i - 1, j - 1) + (left[i - 1] != right[j - 1]),
    )

  assert metrics.edit_distance(left, right) == distance(len(left), len(right))
  assert metrics.edit_distance(right, left) == metrics.edit_distance(left, right)


@pytest.mark.parametrize(
  "prediction, answers, score",
  [
    ("Main Street", ["main  street"], 1),
    ("kitten", ["sitting"], 1 - 3 / 7),
    ("kitten", ["sitting", "kittens"], 1 - 1 / 7),
    ("ab", ["ax"], 0.5),  # at the threshold it counts
    ("abc", ["axx"], 0),  # below it does not
    ("", ["word"], 0),
  ],
)
def test_anls(prediction, answers, score):
  assert metrics.anls(prediction, answers) == pytest.approx(score)


@pytest.mark.parametrize(
  "prediction, read",
  [
    ("Yes", "yes"),
    ("no", "no"),
    ("No, there is none.", "no"),
    ("There is not a dog", "no"),
    ("It is. No doubt", "yes"),  # only the first sentence is read
    ("nothing", "yes"),
    ("", "yes"),
  ],
)
def test_yes_no(prediction, read):
  assert metrics.read_yes_no(prediction) == read
  assert metrics.yes_no(prediction, [read.title()]) == 1
  assert metrics.yes_no(prediction, ["no" if read == "yes" else "yes"]) == 0


@pytest.mark.parametrize(
  "prediction, letter",
  [
    ("B", "B"),
    (" B. ", "B"),
    ("B. the cat", "B"),
    ("The answer is C.", "C"),
    ("I think. The answer is C", "C"),
    ("The answer is A. The answer is B.", None),
    ("Because", None),
    ("B and C", None),
    ("The answer is Cat", None),
    ("", None),
  ],
)
def test_multiple_choice(prediction, letter):
  assert metrics.read_letter(prediction) == letter
  assert metrics.multiple_choice(prediction, [letter or "B"]) == (letter is not None)


@given(
  st.sampled_from(sorted(metrics.METRICS)),
  st.text(max_size=12),
  st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4),
)
def test_every_score_is_a_share_and_ignores_the_order_of_answers(
  name, prediction, answers
):
  score = metrics.METRICS[name](prediction, answers)
  assert isinstance(score, float) and 0 <= score <= 1
  assert metrics.METRICS[name](prediction, answers[::-1]) == pytest.approx(score)
