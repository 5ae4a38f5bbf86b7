"""Questions of the evaluation that the pool holds, by image and words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.evaluation import pool_overlap
from mllm_selector_jax.evaluation.question import LETTER_PROMPT, SHORT_PROMPT, Question


def ask(text, id=0, task="t"):
  return Question(id, task, (), text, ("x",))


def find(questions, pool):
  """(id, kind, row) of each leak; a letter is the only hash of an image."""
  rows = [(row, pixels or "", [text]) for row, (pixels, text) in enumerate(pool)]
  asked = [(question, pixels or "") for question, pixels in questions]
  index = pool_overlap.Index(asked)
  return [
    (leak.id, leak.kind, leak.row) for leak in pool_overlap.find_leaks(index, rows)
  ]


@pytest.mark.parametrize(
  "asked, kind",
  [
    ("What colour is the dog?", "same"),
    (f"<image>\nwhat  COLOUR is the dog\n{SHORT_PROMPT}", "same"),
    (f"What colour is the dog? {LETTER_PROMPT}", "same"),
    ("Please tell me: what colour is the dog in the image?", "near"),
    ("What colour are the dogs?", "near"),
    ("What colour is the cat?", None),
    ("What colour is not the dog?", None),
    ("The dog is what colour?", None),
  ],
)
def test_what_counts_as_the_same_question(asked, kind):
  found = find([(ask("What colour is the dog?"), "p")], [("p", asked)])
  assert found == ([(0, kind, 0)] if kind else [])


def test_another_image_or_none_is_no_leak():
  questions = [(ask("why red?", 1), "p"), (ask("why red?", 2), None)]
  assert find(questions, [("q", "why red?")]) == []
  assert find(questions, [("p", "why red?")]) == [(1, "same", 0)]
  assert find(questions, [(None, "why red?")]) == [(2, "same", 0)]


def test_nearly_the_same_text_alone_is_a_kind_of_its_own():
  asked = [(ask("what color is plum?"), None)]
  pool = [(None, "tell me, what is the color of plum?")]
  assert find(asked, pool) == [(0, "text", 0)]
  assert "text" not in pool_overlap.REFUSED
  assert find(asked, [*pool, (None, "What color is plum")]) == [(0, "same", 1)]


def test_a_question_counts_once_and_by_its_worse_kind():
  pool = [("p", "is the red dog?"), ("p", "red dog?"), ("p", "red dog?")]
  assert find([(ask("red dog?"), "p")], pool) == [(0, "same", 1)]
  twins = [(ask("red dog?", 1), "p"), (ask("red dog", 2), "p")]
  assert find(twins, pool) == [(1, "same", 1), (2, "same", 1)]


def test_questions_of_nothing_but_empty_words_are_never_near():
  assert find([(ask("what is this?"), "p")], [("p", "what is that?")]) == [
    (0, "near", 0)
  ]
  assert find([(ask("is this it?"), "p")], [("p", "it")]) == [(0, "near", 0)]
  assert find([(ask("is this?"), "p")], [("p", "are these?")]) == []


@given(
  st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from(["a dog", "dog", "cat"]))),
  st.lists(
    st.tuples(st.sampled_from("pq"), st.sampled_from(["the dog", "dog", "cat"]))
  ),
)
def test_leaks_equal_every_pair_compared(asked, pool):
  questions = [(ask(text, id), pixels) for id, (pixels, text) in enumerate(asked)]
  expected = {
    id
    for id, (pixels, text) in enumerate(asked)
    for other, held in pool
    if pixels == other and text.split()[-1] == held.split()[-1]
  }
  assert {id for id, _, _ in find(questions, pool)} == expected
