"""Metrics against worked examples of the published rules and slow oracles."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.evaluation import metrics
from mllm_selector_jax.evaluation.published import letters

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
    ("a  b", ["a b"], 1),
    ("ab      cd", ["ab cx"], 1 - 1 / 10),  # lengths are of the texts as they are
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
    ("I think. The answer is C.", "C"),
    ("The answer is C", None),  # the published pattern wants one more character
    ("b", "B"),
    ("B.the cat", "B"),
    ("(B)", None),
    ("The answer is A. The answer is B.", None),
    ("Because", None),
    ("B and C", None),
    ("The answer is Cat", "C"),  # and takes any
    ("", None),
  ],
)
def test_multiple_choice(prediction, letter):
  assert metrics.read_letter(prediction) == letter
  assert metrics.multiple_choice(prediction, [letter or "B"]) == (letter is not None)


@pytest.mark.parametrize("agreeing", range(11))
def test_textvqa_accuracy_spells_its_own_way(agreeing):
  answers = ["dog's bed"] * agreeing + [f"other{i}" for i in range(10 - agreeing)]
  marks = [
    min(1, sum(x == "dog's bed" for j, x in enumerate(answers) if j != i) / 3)
    for i in range(10)
  ]
  score = metrics.textvqa_accuracy("Dog 's bed?", answers)
  assert score == pytest.approx(np.mean(marks))
  assert metrics.vqa_accuracy("Dog 's bed?", answers) == 0


@pytest.mark.parametrize(
  "prediction, score", [("T-Shirt.", 1), ("tshirt", 1), ("t shirt", 0), ("", 0)]
)
def test_gqa(prediction, score):
  assert metrics.plain_match(prediction, ["t-shirt"]) == score


@pytest.mark.parametrize(
  "prediction, read",
  [
    ("Yes", "yes"),
    ("No.", "no"),
    ("y", "yes"),
    ("N", "no"),
    ("x", None),
    ("yes, it is", "yes"),
    ("Oh no", None),  # beyond the first four characters: "oh n"
    ("not so", "no"),
    ("I say no", None),
    ("", None),
  ],
)
def test_mme(prediction, read):
  assert metrics.read_mme(prediction) == read
  for answer in ("yes", "no"):
    assert metrics.mme_match(prediction, [answer.title()]) == (read == answer)


@pytest.mark.parametrize(
  "prediction, score",
  [
    ("B", 1),
    (" B. the cat", 1),
    ("(b)", 1),
    ("b", 1),
    ("A", 0),
    ("The answer is B", 0),
  ],
)
def test_ai2d(prediction, score):
  assert metrics.ai2d_match(prediction, ["B"]) == score


@pytest.mark.parametrize(
  "prediction, letter",
  [
    ("B", "B"),
    ("B.", "B"),
    ("(C)", "C"),
    ("the answer: B)", "B"),
    ("A or B", None),
    ("A", "A"),
    ("A cat is here now", "B"),  # an article, and the words of one option
    ("it is A. for sure", "A"),
    ("a Dog", "C"),
    ("cat or dog", None),
    ("E", "E"),
    ("bird", None),
    ("", None),
  ],
)
def test_mmbench(prediction, letter):
  choices = ("cow", "cat", "dog")
  assert metrics.infer_option(prediction, choices) == letter
  for answer in "ABC":
    score = metrics.mark("mmbench", prediction, [answer], choices)
    assert score == (answer == letter)


# What each benchmark's own rule makes of answers to a question whose right option is B,
# "a dog"; docs/evaluation.md has the sources.
ANSWERS = {
  # answer: ScienceQA, AI2D, MMBench
  "B": (1, 1, 1),
  "b": (1, 1, 0),
  "B.": (1, 1, 1),
  "(B)": (0, 1, 1),
  "B)": (0, 1, 1),
  "B:": (0, 1, 1),
  "(B).": (0, 1, 1),
  "b.": (0, 1, 0),
  "B. a dog": (1, 1, 1),
  "B.a dog": (1, 1, 1),  # MMBench's by its words
  "(B) a dog": (0, 0, 1),
  "B) a dog": (0, 0, 1),
  "a dog": (0, 0, 1),
  "A dog": (0, 0, 0),  # a bare A is an option unless more words follow
  "The answer is B": (0, 0, 1),
  "The answer is B.": (1, 0, 1),
  "The answer is (B).": (0, 0, 1),
  "the answer is B.": (0, 0, 1),
  "Answer: B": (0, 0, 1),
  "A": (0, 0, 0),
  "A or B": (0, 0, 0),
  "A. a dog": (0, 0, 0),
  "": (0, 0, 0),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_letter_counts_by_the_rule_of_its_benchmark(answer):
  choices = "a cat", "a dog", "a cow"
  marks = [
    metrics.mark(name, answer, ["B"], choices)
    for name in ("multiple_choice", "ai2d", "mmbench")
  ]
  assert marks == [float(mark) for mark in ANSWERS[answer]]


def test_the_letters_benchmarks_are_marked_by_these_metrics():
  """Every benchmark that is answered by a letter has a column above."""
  names = {"scienceqa": "multiple_choice", "ai2d": "ai2d", "mmbench": "mmbench"}
  assert set(names) == set(letters.BENCHMARKS)
  assert set(names.values()) == metrics.LETTERED


def test_only_mmbench_looks_at_the_options():
  assert metrics.mark("multiple_choice", "B", ["B"], ("x", "y")) == 1
  assert metrics.mark("mmbench", "dog", ["B"]) == 0


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
