"""A model that only knows the commonest answer is not one that knows the group."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.selection import necessity, skill
from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.heldout_loss import Doubt, find_doubted
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.reasons import CODE

YES, NO = np.uint64(11), np.uint64(2**64 - 5)
REASONS = {  # the reason of each bound that goes by what a model knows
  "mixture": "unlikely to the seed model",
  "gate": "wrong where the seed model is mostly right",
  "tail_safe": "upper necessity bound",
  "probe": "unlikely to a model that has not seen it",
}


def ask(rng, rows=400, majority=0.9, wrong=0.08, knows=True):
  """A group of two answers: loss, whether right, answer, and whether it is wrong.

  Args:
    rng: of the draws.
    rows: of the group.
    majority: share of the rows whose true answer is yes.
    wrong: share of the rows that have the other answer.
    knows: whether the model gives the true answer; otherwise it always says yes.
  """
  truth = np.where(np.arange(rows) < majority * rows, YES, NO)
  flipped = rng.permutation(rows) < wrong * rows
  answer = np.where(flipped, YES ^ NO ^ truth, truth)
  said = truth if knows else np.full(rows, YES, np.uint64)
  right = answer == said
  loss = np.where(right, rng.gamma(2, 0.05, rows), 2.5 + rng.normal(0, 0.2, rows))
  return loss, right.astype(np.float64), answer, flipped


def find(bound, loss, right, answer, groups=None, seen=None):
  """The suspects of a bound."""
  groups = np.zeros(len(loss), int) if groups is None else groups
  scores = Scores(
    loss,
    np.arange(len(loss), dtype=np.uint64),
    {"loss": loss, "accuracy": right},
    seen=seen,
    doubt=Doubt(loss, right),
    answer=answer,
  )
  named = Groups(groups, tuple(map(str, range(int(groups.max()) + 1))))
  found = sort_out(scores, named, 0, SelectOptions(bound=bound), True)
  assert set(found.code[found.suspect]) <= {CODE[f"suspect: {REASONS[bound]}"]}
  return found.suspect


@pytest.mark.parametrize("bound", REASONS)
@pytest.mark.parametrize("majority", [0.5, 0.7, 0.9, 0.97])
def test_a_majority_is_no_knowledge(bound, majority):
  loss, right, answer, _ = ask(np.random.default_rng(0), majority=majority, knows=False)
  assert not find(bound, loss, right, answer).any()
  if majority == 0.9:  # without answers all that it finds is the other class
    assert set(answer[find(bound, loss, right, None)]) == {NO}


@pytest.mark.parametrize("bound", REASONS)
@pytest.mark.parametrize("majority", [0.5, 0.7, 0.9])
def test_who_knows_a_group_finds_its_wrong_answers(bound, majority):
  loss, right, answer, wrong = ask(np.random.default_rng(0), majority=majority)
  found = find(bound, loss, right, answer)
  np.testing.assert_array_equal(found, wrong)


def test_both_stand_in_one_pool():
  rng = np.random.default_rng(0)
  parts = [ask(rng, knows=False), ask(rng), ask(rng, majority=0.5)]
  loss, right, answer, wrong = map(np.concatenate, zip(*parts, strict=True))
  groups = np.repeat(np.arange(3), 400)
  found = find_doubted(Doubt(loss, right), groups, answer)
  np.testing.assert_array_equal(found.suspect, wrong & (groups > 0))
  reason = "groups whose answers are not told apart"
  assert found.spared == {reason: {"groups": 1, "rows": 400}}


def test_an_answer_that_is_never_given_is_not_held_against_a_row():
  rng = np.random.default_rng(0)
  colour = rng.integers(100, 108, 400).astype(np.uint64)
  wrong = rng.permutation(400) < 40
  never = rng.permutation(400) < 60
  answer = np.where(never, NO, np.where(wrong, 100 + (colour - 99) % 8, colour))
  right = ~wrong & ~never
  loss = np.where(right, rng.gamma(2, 0.05, 400), 3 + rng.normal(0, 0.2, 400))
  doubt, groups = Doubt(loss, right.astype(np.float64)), np.zeros(400, int)
  found = find_doubted(doubt, groups, answer)
  np.testing.assert_array_equal(found.suspect, wrong & ~never)
  reason = "rows whose answer is hardly ever given"
  assert found.spared == {reason: {"groups": 1, "rows": 60}}
  assert (find_doubted(doubt, groups).suspect & never).sum() > 30
  # A wrong answer that hardly any row has is suspect as before.
  rare = np.where(never, rng.permutation(400) // 7 + 1000, answer).astype(np.uint64)
  np.testing.assert_array_equal(
    find_doubted(doubt, groups, rare).suspect, find_doubted(doubt, groups).suspect
  )


@pytest.mark.parametrize("kinds", [2, 6])
@pytest.mark.parametrize("rows", [600, 60_000])
def test_groups_of_one_answer_each_are_known_by_the_others(kinds, rows):
  """Clusters of embeddings gather the rows to which a model gives one answer."""
  rng = np.random.default_rng(0)
  truth = rng.integers(0, kinds, rows)
  wrong = rng.permutation(rows) < 0.12 * rows
  answer = np.where(wrong, (truth + rng.integers(1, kinds, rows)) % kinds, truth)
  right = (answer == truth).astype(np.float64)
  loss = np.where(wrong, 3.0, 0.1) + rng.normal(0, 0.05, rows)
  found = find_doubted(Doubt(loss, right), truth, answer.astype(np.uint64))
  np.testing.assert_array_equal(found.suspect, wrong)


@pytest.mark.parametrize("skilled", [0.97, 0.8])
def test_clusters_of_a_model_that_is_often_wrong_are_left_alone(skilled):
  rng = np.random.default_rng(0)
  truth = rng.integers(0, 2, 4000)
  said = np.where(rng.random(4000) < skilled, truth, 1 - truth)
  wrong = rng.random(4000) < 0.12
  answer = np.where(wrong, 1 - truth, truth)
  right = (answer == said).astype(np.float64)
  loss = np.where(right > 0, 0.1, 3.0) + rng.normal(0, 0.05, 4000)
  found = find_doubted(Doubt(loss, right), said, answer.astype(np.uint64)).suspect
  if skilled < 0.9:  # most of what it would find is right
    assert (~right.astype(bool) & ~wrong).sum() > (~right.astype(bool) & wrong).sum()
    assert not found.any()
  else:
    np.testing.assert_array_equal(found, right == 0)
    assert wrong[found].mean() > 0.75


@given(st.integers(0, 2**32))
def test_where_all_answers_differ_nothing_changes(seed):
  rng = np.random.default_rng(seed)
  count = int(rng.integers(1, 300))
  groups = rng.integers(0, 3, count)
  right = (rng.random(count) < rng.random()).astype(np.float64)
  loss = rng.exponential(size=count) + 2 * (1 - right)
  loss[rng.random(count) < 0.05] = np.nan
  answer = rng.permutation(count).astype(np.uint64)
  before = find_doubted(Doubt(loss, right), groups)
  after = find_doubted(Doubt(loss, right), groups, answer)
  np.testing.assert_array_equal(after.suspect, before.suspect)
  assert after.spared == before.spared
  asked = np.isfinite(loss)
  found, _, _ = skill.measure(right >= 1, groups, answer, asked)
  for group in range(int(groups.max()) + 1):
    own = asked & (groups == group)
    expected = right[own].mean() if own.any() else 0
    assert found[group] == pytest.approx(expected, abs=1e-12)
  np.testing.assert_array_equal(
    necessity.failed_where_competent(right, groups, 0.6, asked, answer),
    necessity.failed_where_competent(right, groups, 0.6, asked),
  )


@given(st.integers(0, 2**32))
def test_skill_equals_a_loop_over_groups_and_answers(seed):
  rng = np.random.default_rng(seed)
  count = int(rng.integers(1, 200))
  groups = rng.integers(0, 4, count)
  answers = rng.integers(0, int(rng.integers(1, 9)), count).astype(np.uint64)
  right, asked = rng.random(count) < 0.6, rng.random(count) < 0.9
  found, given_share, rows = skill.measure(right, groups, answers, asked)
  for group in range(int(groups.max()) + 1):
    weights, reached = {}, 0.0
    for answer in set(answers[asked & (groups == group)].tolist()):
      pool = asked & (answers == answer)
      own = pool & (groups == group)
      prior = 0.1 * (asked & (groups == group)).sum()
      share = (right[own].sum() + prior * right[pool].mean()) / (own.sum() + prior)
      weights[answer] = own.sum()
      reached += math.sqrt(own.sum()) * share
      at = own & asked
      np.testing.assert_allclose(given_share[at], share, rtol=1e-12)
      assert (rows[at] == pool.sum()).all()
    if not weights:
      assert found[group] == 0
      continue
    guess = math.sqrt(max(weights.values()) - 1)
    most = sum(map(math.sqrt, weights.values()))
    assert found[group] == pytest.approx((reached - guess) / (most - guess), rel=1e-9)
  # Neither the order of rows nor the numbers of groups matter, to the last bit.
  order, name = rng.permutation(count), rng.permutation(4)
  moved = skill.measure(right[order], name[groups[order]], answers[order], asked[order])
  for group in np.unique(groups):
    assert moved[0][name[group]] == found[group]
  np.testing.assert_array_equal(moved[1], given_share[order])


def test_the_ends_of_the_scale():
  groups, asked = np.repeat([0, 1, 2, 4], 50), np.ones(200, bool)
  asked[150:] = False
  answers = np.repeat([7, 8, 8, 9], 50).astype(np.uint64)
  answers[50:150:2] = 9
  right = np.ones(200, bool)
  right[51:150:2] = groups[51:150:2] == 1  # the third group's are all 9
  right[50:150:2] = True
  found, _, _ = skill.measure(right, groups, answers, asked)
  assert found[0] == 1  # one answer, all right
  assert found[1] > 0.7 > 0.3 > found[2] and found[3] == found[4] == 0
  right[0] = False
  assert (
    skill.measure(right, groups, answers, asked)[0][0] < 0
  )  # below always saying it
  nothing = np.zeros(0, np.int64)
  empty = skill.measure(nothing > 0, nothing, nothing.astype(np.uint64), nothing > 0)
  assert [len(each) for each in empty] == [0, 0, 0]
  assert find_doubted(Doubt(np.zeros(0), np.zeros(0)), nothing, None).spared == {}
