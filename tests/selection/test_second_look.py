"""Evidence against answers: what the model is sure of, and what near rows answer."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.selection import second_look
from mllm_selector_jax.selection.second_look import NEIGHBOURS, Near


def error_norm(logits, target):
  """|softmax - onehot| of one token, in plain numpy."""
  shifted = np.exp(logits - logits.max())
  difference = shifted / shifted.sum()
  difference[target] -= 1
  return np.sqrt((difference**2).sum())


def test_opposition_is_high_only_if_the_model_is_sure_of_another_answer():
  unsure, sure = np.zeros(50), np.zeros(50)
  sure[3] = 12.0
  end = 1e-3  # the error of the token that ends a turn
  norms = [error_norm(unsure, 7), error_norm(sure, 7), error_norm(sure, 3)]
  el2n = np.array([(norm + end) / 2 for norm in norms])
  supervised, turns = np.full(3, 2), np.ones(3, np.int64)
  measured = second_look.measure_opposition(el2n, supervised, turns)
  np.testing.assert_allclose(measured, np.array(norms) + end, atol=2e-3)
  assert second_look.UNSURE < measured[0] < second_look.SURE < measured[1]
  assert measured[2] < 0.01
  # Two turns of one token each are as one turn.
  twice = second_look.measure_opposition(el2n, 2 * supervised, 2 * turns)
  np.testing.assert_allclose(twice, measured)
  # A row whose every token ends a turn divides by one, not by zero.
  alone = second_look.measure_opposition(np.array([0.3]), np.array([1]), np.array([1]))
  np.testing.assert_allclose(alone, 0.3)


def test_a_model_that_is_sure_and_mostly_wrong_is_no_evidence():
  right = np.array([1, 1, 0, 0, 1, 0, 0, 0, 0], bool)
  opposition = np.array([0, 0, 1.3, 1.2, 0, 1.3, 1.3, 0.9, 1.4])
  groups = np.array([0, 0, 0, 0, 1, 1, 1, 2, 3])
  reliable = second_look.find_reliable(opposition, right, groups)
  # Two of each; one right and two against; nothing; one against.
  np.testing.assert_array_equal(reliable, np.isin(groups, [0, 2]))
  order = np.random.default_rng(0).permutation(9)
  np.testing.assert_array_equal(
    second_look.find_reliable(opposition[order], right[order], groups[order]),
    reliable[order],
  )
  none = np.zeros(0)
  assert second_look.find_reliable(none, none > 0, none.astype(int)).tolist() == []


def draw_rows(seed, rows=60, answers=3):
  rng = np.random.default_rng(seed)
  vectors = rng.normal(size=(rows, 4)).astype(np.float32)
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  return (
    vectors,
    rng.integers(0, 3, rows),
    rng.integers(0, answers, rows).astype(np.uint64),
    rng.permutation(rows).astype(np.uint64),
  )


def find_plainly(vectors, groups, answers, key, row):
  """The same in plain Python; compared, same and other."""
  others = [
    n for n in range(len(key)) if groups[n] == groups[row] and key[n] != key[row]
  ]
  others.sort(
    key=lambda n: (-np.rint(float(vectors[row] @ vectors[n]) * 2**20), key[n])
  )
  near = [answers[n] for n in others[:NEIGHBOURS]]
  different = [answer for answer in near if answer != answers[row]]
  most = max(map(different.count, different), default=0)
  return len(near), near.count(answers[row]), most


@given(st.integers(0, 10**6))
def test_near_rows_are_those_of_a_plain_search(seed):
  vectors, groups, answers, key = draw_rows(seed)
  asked = np.arange(0, 60, 7)
  near = second_look.find_near(vectors, groups, answers, key, asked)
  for place, row in enumerate(asked):
    expected = find_plainly(vectors, groups, answers, key, row)
    assert (near.compared[place], near.same[place], near.other[place]) == expected
    if near.other[place]:
      example = near.example[place]
      assert groups[example] == groups[row] and answers[example] != answers[row]
    else:
      assert near.example[place] == -1


def test_near_rows_do_not_depend_on_the_order_of_the_rows():
  rows = draw_rows(1)
  order = np.random.default_rng(2).permutation(60)
  asked = np.arange(60)
  before = second_look.find_near(*rows, asked)
  after = second_look.find_near(*(column[order] for column in rows), asked)
  for field in ("compared", "same", "other"):
    np.testing.assert_array_equal(
      getattr(before, field)[order], getattr(after, field), field
    )
  found = after.example >= 0
  np.testing.assert_array_equal(
    before.example[order][found], order[after.example[found]]
  )


def test_copies_are_no_evidence_and_twins_are_named():
  vectors = np.eye(4, dtype=np.float32)[[0, 0, 0, 1, 2]]
  answers = np.array([5, 5, 9, 5, 5], np.uint64)
  key = np.array([1, 1, 2, 3, 4], np.uint64)  # the second row is a copy of the first
  near = second_look.find_near(
    vectors, np.zeros(5, np.int64), answers, key, np.array([0, 2, 3])
  )
  np.testing.assert_array_equal(near.compared, [3, 4, 4])
  np.testing.assert_array_equal(near.same, [2, 0, 3])
  assert near.twin[0] == 2 and near.twin[1] in (0, 1) and near.twin[2] == -1
  alone = second_look.find_near(
    vectors[:1], np.zeros(1, np.int64), answers[:1], key[:1], np.array([0])
  )
  assert alone == Near(*(np.array([n]) for n in (0, 0, 0, -1, -1)))


def test_both_kinds_of_evidence_need_the_model():
  def make(same, other):
    none = np.full(len(same), -1)
    return Near(np.full(len(same), 8), np.array(same), np.array(other), none, none)

  opposition = np.array([1.2, 1.2, 0.95, 0.5, 1.2])
  gives = np.array([True, False, False, True, True])
  near = make([0, 0, 0, 0, 4], [3, 6, 6, 8, 4])
  against = second_look.weigh(opposition, gives, near)
  np.testing.assert_array_equal(against.model, [True, False, False, False, False])
  np.testing.assert_array_equal(against.near, [False, True, True, False, False])
  # Without near rows the model alone speaks.
  against = second_look.weigh(opposition, gives, None)
  np.testing.assert_array_equal(against.model, [True, False, False, False, True])
  assert not against.near.any()
