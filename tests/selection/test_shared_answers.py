"""When suspects share one answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.shared_answers import Shared, find_shared


def make(yes, no, more=0):
  """A group of two answers: which rows are suspect, and the answers.

  Args:
    yes, no: numbers of rows and of suspects with either answer.
    more: rows of another answer, none suspect.
  """
  suspect, answers = [], []
  for answer, (rows, suspects) in ((1, yes), (2, no), (3, (more, 0))):
    suspect += [True] * suspects + [False] * (rows - suspects)
    answers += [answer] * rows
  return np.array(suspect), np.array(answers, np.uint64)


@pytest.mark.parametrize(
  "yes, no, more, shared",
  [
    ((500, 0), (500, 50), 0, True),  # all suspects are of one class
    ((50, 5), (50, 15), 0, True),  # odds of 3, where rows have 1
    ((50, 6), (50, 16), 0, False),
    ((900, 0), (100, 19), 0, False),  # too few
    ((900, 0), (100, 20), 0, True),
    ((900, 21), (100, 20), 0, False),  # less than half of them
    ((90, 45), (10, 5), 0, False),  # as among all rows
    ((60, 40), (40, 0), 900, True),
    ((100, 30), (0, 0), 0, False),  # there is no other answer
  ],
)
def test_the_rule(yes, no, more, shared):
  suspect, answers = make(yes, no, more)
  groups = np.zeros(len(answers), int)
  found = find_shared(suspect, groups, answers)
  assert len(found) == 2 * shared  # of the selection, and of its one group
  if shared:
    answer = 1 if yes[1] > no[1] else 2
    first = int(np.flatnonzero(suspect & (answers == answer))[0])
    own = max(yes[1], no[1]), yes[1] + no[1], float(np.mean(answers == answer))
    assert found == (Shared(None, first, *own), Shared(0, first, *own))


@given(st.integers(0, 2**32))
def test_it_equals_a_loop_over_groups(seed):
  rng = np.random.default_rng(seed)
  count = int(rng.integers(1, 400))
  groups, answers = rng.integers(0, 3, count), rng.integers(0, 3, count)
  chance = rng.random((3, 3)) ** 2
  suspect = rng.random(count) < chance[groups, answers]
  expected = []
  for scope in (None, 0, 1, 2):
    own = np.ones(count, bool) if scope is None else groups == scope
    of = int((own & suspect).sum())
    if of < 20:
      continue
    counts = [int((own & suspect & (answers == answer)).sum()) for answer in range(3)]
    answer = int(np.argmax(counts))
    same, others = (own & (answers == answer)).sum(), (own & (answers != answer)).sum()
    odds = counts[answer] * int(others) >= 3 * int(same) * (of - counts[answer])
    if odds and others and counts[answer] >= of / 2:
      row = int(np.flatnonzero(own & suspect & (answers == answer))[0])
      expected.append(Shared(scope, row, counts[answer], of, same / own.sum()))
  assert find_shared(suspect, groups, answers.astype(np.uint64)) == tuple(expected)


def test_a_selection_tells_what_is_beyond_its_bound():
  suspect, answers = make((300, 0), (300, 30))
  loss = np.where(suspect, 5.0, 1.0) + np.linspace(0, 0.1, 600)
  scores = Scores(loss, np.arange(600, dtype=np.uint64), {"loss": loss}, answer=answers)
  groups = Groups(np.zeros(600, int), ("all",))
  options = SelectOptions(bound=0.05)
  (whole, own) = sort_out(scores, groups, 0, options, True).shared
  assert whole == own._replace(group=None) and own[2:] == (30, 30, 0.5)
  assert suspect[own.row]
  assert sort_out(scores, groups, 0, options, False).shared == ()
