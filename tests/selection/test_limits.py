"""Limits by value: against plain loops, and what they promise of any pool."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm_selector_jax.selection import limited
from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.limits import make_column
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.reasons import PASSED_OVER, RESERVED
from mllm_selector_jax.selection.strategies import STRATEGIES, select
from mllm_selector_jax.types import InputError
from tests.selection.pools import make_columns, make_pool, permute

MOST, LEAST = {"image": 2, "topic": "60%"}, {"topic": 3}
ROWS = 200


def make_limited(rows=ROWS, seed=0, images=None, topics=5, **fields):
  scores, groups = make_pool(rows, seed, **fields)
  columns = make_columns(rows, seed, images, topics)
  return dataclasses.replace(scores, columns=columns), groups


def members(scores, name):
  """For each value of a column the set of its rows."""
  column = scores.columns[name]
  rows = [set() for _ in column.names]
  for row, (start, stop) in enumerate(itertools.pairwise(column.bounds)):
    for value in column.index[start:stop]:
      rows[value].add(row)
  return rows


def admit_plainly(order, most, least):
  """Walks twice: for rows that are needed, and for all others that fit.

  Args:
    order: row numbers.
    most, least: pairs of the rows of a value and its amount.
  """
  kept = []

  def fits(row):
    return all(len(rows & {*kept, row}) <= limit for rows, limit in most if row in rows)

  for row in order:
    lacks = any(row in rows and len(rows & {*kept}) < limit for rows, limit in least)
    if lacks and fits(row):
      kept.append(row)
  reserved = list(kept)
  for row in order:
    if row not in kept and fits(row):
      kept.append(row)
  return reserved, kept


def list_amounts(scores, most, least):
  def pairs(amounts):
    found = []
    for name, amount in amounts.items():
      for rows in members(scores, name):
        text = str(amount)
        share = text.endswith("%") and -(-len(rows) * int(text[:-1]) // 100)
        found.append((rows, share or int(text.rstrip("%"))))
    return found

  return pairs(most), pairs(least)


def in_rank(selection):
  rows = np.flatnonzero(selection.kept)
  return rows[np.argsort(selection.rank[rows])].tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 3))
def test_the_highest_rows_that_fit_are_those_of_a_plain_loop(seed, most, least):
  scores, groups = make_limited(40, seed, seen=None)
  most, least = {"image": most, "topic": "70%"}, {"topic": least} if least else {}
  order = np.argsort(-scores.necessity).tolist()
  reserved, wanted = admit_plainly(order, *list_amounts(scores, most, least))
  for budget in (len(reserved) or 1, 20, 40):
    if budget < len(reserved):
      continue
    options = SelectOptions("top", most=most, least=least)
    chosen = select(scores, groups, budget, 0, options)
    assert in_rank(chosen) == wanted[:budget]
    assert {*np.flatnonzero(chosen.reason == RESERVED)} == {*reserved}
    passed = {*range(40)} - {*wanted}
    assert {*np.flatnonzero(chosen.reason == PASSED_OVER)} == passed
    assert chosen.limits["passed_over"] == len(passed)


@pytest.mark.parametrize("within", ["top", "uniform"])
def test_kl_is_the_optimum_of_the_rows_that_fit(within):
  for seed in range(8):
    scores, groups = make_limited(12, seed, 9, 2, count=3, seen=None)
    most, least = {"image": 1}, {"topic": 1} if seed % 2 else {}
    options = SelectOptions(
      within=within, bound="none", floor=0.0, most=most, least=least
    )
    chosen = select(scores, groups, 4, 0, options)
    without = select(
      scores, groups, 12, 0, dataclasses.replace(options, most=None, least=None)
    )
    order = in_rank(without)  # by falling gain
    reserved, fitting = admit_plainly(order, *list_amounts(scores, most, least))
    assert {*np.flatnonzero(chosen.kept)} <= {*fitting}
    assert {*reserved} <= {*np.flatnonzero(chosen.kept)}
    values = without.normalised_necessity
    if within == "uniform":
      values = without.table.mean[groups.index]
    target, best = without.table.target, -np.inf
    for some in itertools.combinations(fitting, 4):
      if {*reserved} <= {*some}:
        share = np.bincount(groups.index[[*some]], minlength=3) / 4
        used = share > 0
        kl = np.sum(share[used] * np.log(share[used] / target[used]))
        best = max(best, values[[*some]].mean() - 0.4 * kl)
    assert chosen.certificate.value == pytest.approx(best, abs=1e-9)
    assert abs(chosen.certificate.gap) < 1e-9


def greedy_plainly(strategy, scores, order, forced, count, fits):
  """Facility location or k-center over rows in drawn order, row by row."""
  x = scores.embeddings[order].astype(np.float64)
  x /= np.linalg.norm(x, axis=1, keepdims=True)
  cosine = np.rint(x @ x.T * 2**20) / 2**20
  best = np.full(len(order), -np.inf)
  if strategy == "facility_location":
    cosine, best = np.maximum(cosine, 0), np.zeros(len(order))
  picks = []
  while len(picks) < count:
    if strategy == "facility_location":
      merit = np.maximum(cosine - best[None], 0).sum(1)
    else:
      merit = -best
    open_rows = [
      n for n in range(len(order)) if n not in picks and fits(order, picks, n)
    ]
    if not open_rows:
      break
    pick = max(open_rows, key=lambda n: (merit[n], -n))
    pick = len(picks) if len(picks) < forced else pick
    picks.append(pick)
    best = np.maximum(best, cosine[pick])
  return [int(order[pick]) for pick in picks]


@pytest.mark.parametrize("strategy", ["facility_location", "k_center"])
@pytest.mark.parametrize("least", [{}, {"topic": 2}])
def test_greedy_choices_pass_over_full_rows_when_they_come(strategy, least):
  scores, groups = make_limited(60, 3, topics=3)
  most = {"image": 1, "topic": "60%"}
  tops, lows = list_amounts(scores, most, least)
  options = SelectOptions(strategy, most=most, least=least)
  drawn = sort_out(scores, groups, 0, options, bounded=False).tie
  order = np.argsort(drawn).tolist()
  reserved, _ = admit_plainly(order, tops, lows)
  order = np.array(reserved + [row for row in order if row not in reserved])

  def fits(order, picks, place):
    kept = {int(order[pick]) for pick in (*picks, place)}
    return all(len(rows & kept) <= limit for rows, limit in tops)

  wanted = greedy_plainly(strategy, scores, order, len(reserved), 60, fits)
  assert len(wanted) < 60  # some never fit
  for budget in (20, 60):
    chosen = select(scores, groups, budget, 0, options)
    assert in_rank(chosen) == wanted[:budget]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("least", [None, LEAST])
def test_every_strategy_keeps_to_limits_at_every_budget(strategy, least):
  scores, groups = make_limited()
  options = SelectOptions(strategy, most=MOST, least=least)
  tops, lows = list_amounts(scores, MOST, least or {})
  before = np.zeros(ROWS, bool)
  for budget in (*range(30, 131, 20), ROWS):
    chosen = select(scores, groups, budget, 3, options)
    kept = {*np.flatnonzero(chosen.kept).tolist()}
    assert all(len(rows & kept) <= limit for rows, limit in tops)
    unmet = [rows for rows, limit in lows if len(rows & kept) < min(limit, len(rows))]
    assert len(unmet) == chosen.limits["unmet"]["topic"] == 0
    assert not np.any(before & ~chosen.kept), budget
    before = chosen.kept
    assert len(kept) == budget or budget > 80
  assert len(kept) < ROWS and "passed over by select.most" in " ".join(chosen.warnings)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_of_rows_is_no_matter(strategy):
  forced = np.zeros(ROWS, bool)
  forced[[3, 50]] = True
  scores, groups = make_limited(forced_in=forced)
  options = SelectOptions(strategy, most=MOST, least=LEAST)
  order = np.random.default_rng(9).permutation(ROWS)
  one = select(scores, groups, 60, 5, options)
  other = select(*permute(scores, groups, order), 60, 5, options)
  for name in ("kept", "rank", "gain", "reason"):
    np.testing.assert_array_equal(
      getattr(one, name)[order], getattr(other, name), err_msg=name
    )
  assert one.limits == other.limits and one.warnings == other.warnings
  assert set(one.reason[forced]) == {"forced in"}


@pytest.mark.parametrize("strategy", ["kl", "random", "k_center"])
@pytest.mark.parametrize("tokens", [700, 2000, 10**6])
def test_a_budget_in_tokens_is_the_longest_prefix(strategy, tokens):
  scores, groups = make_limited()
  options = SelectOptions(strategy, most=MOST, least={"topic": 2})
  chosen = select(scores, groups, f"{tokens}tok", 0, options)
  count = int(chosen.kept.sum())
  assert scores.tokens[chosen.kept].sum() <= tokens
  np.testing.assert_array_equal(
    select(scores, groups, count, 0, options).kept, chosen.kept
  )
  more = select(scores, groups, count + 1, 0, options)
  assert more.kept.sum() == count or scores.tokens[more.kept].sum() > tokens


def test_limits_that_no_value_reaches_change_nothing():
  for strategy in STRATEGIES:
    scores, groups = make_limited()
    plain = select(scores, groups, 50, 0, SelectOptions(strategy))
    options = SelectOptions(strategy, most="image=100, topic=100%")
    same = select(scores, groups, 50, 0, options)
    np.testing.assert_array_equal(same.rank, plain.rank)
    if strategy != "deita":  # which judges more rows than the budget needs
      np.testing.assert_array_equal(same.reason, plain.reason)
    assert not plain.limits and same.limits["passed_over"] == 0


def test_suspects_that_fill_the_budget_fit_as_well():
  scores, groups = make_limited()
  options = SelectOptions(bound=0.3, most={"image": 2})
  chosen = select(scores, groups, ROWS, 0, options)
  filling = np.flatnonzero(chosen.reason == "kept to fill the budget")
  kept = {*np.flatnonzero(chosen.kept).tolist()}
  assert len(filling)
  assert all(len(rows & kept) <= 2 for rows in members(scores, "image"))


def test_floors_that_cannot_be_met_are_told_with_the_reason():
  count = 12
  topic = np.array(["few"] * 2 + ["shared"] * 4 + ["rest"] * 5 + ["bad"])
  image = np.array(["a", "b"] + ["c"] * 4 + [None] * 6, object)
  loss = np.arange(count, dtype=float)
  scores = Scores(
    loss,
    np.arange(count, dtype=np.uint64),
    columns={"topic": make_column(topic), "image": make_column(image)},
    signals={"ifd": np.where(topic == "bad", 2.0, 0.5)},
  )
  options = SelectOptions("ifd", most="image=1", least="topic=3")
  chosen = select(scores, np.zeros(count, int), 8, 0, options)
  assert chosen.limits["unmet_values"] == [
    dict(
      column="topic",
      value="bad",
      kept=0,
      least=3,
      why="the other 1 are suspect or dropped",
    ),
    dict(column="topic", value="few", kept=2, least=3, why="it has no other rows"),
    dict(
      column="topic",
      value="shared",
      kept=1,
      least=3,
      why="select.most passes over 3 others",
    ),
  ]
  assert chosen.limits["unmet"] == {"image": 0, "topic": 3}
  assert chosen.limits["full"] == {"image": 1, "topic": 0}
  (warning,) = [text for text in chosen.warnings if "select.least" in text]
  assert "3 values get fewer rows: topic 'bad' (0 of 3: the other 1" in warning


@pytest.mark.parametrize(
  ("settings", "fields", "budget", "words"),
  [
    ({"most": "colour=2"}, {}, 10, "select.most names the column 'colour'; there are"),
    ({"least": "colour=2"}, {}, 10, "select.least names the column 'colour'"),
    (
      {"most": "topic=2", "least": "topic=3"},
      {},
      20,
      "select.least wants 3 rows of topic 'topic 0', and select.most allows 2",
    ),
    (
      {"most": "topic=10%", "least": "topic=20%"},
      {},
      20,
      "select.least wants .* rows of topic 'topic 0', and select.most allows",
    ),
    ({"least": "topic=5"}, {}, 10, r"25 rows .* select.least \(25\), above the budget"),
    ({"least": "topic=5"}, {}, "100tok", "select.least .* above the budget of 100;"),
    (
      {"most": "topic=1"},
      {"forced_in": np.arange(ROWS) < 30},
      40,
      "rows of topic 'topic 0' are forced in, and select.most allows 1",
    ),
  ],
)
def test_what_cannot_be_is_refused_by_name(settings, fields, budget, words):
  scores, groups = make_limited(**fields)
  for strategy in ("kl", "random", "k_center", "coincide"):
    with pytest.raises(InputError, match=words):
      select(scores, groups, budget, 0, SelectOptions(strategy, **settings))


def test_a_strategy_that_does_not_keep_to_limits_is_named():
  scores, groups = make_limited()
  options = SelectOptions("random", most="topic=3", least="topic=2")
  limits = sort_out(scores, groups, 0, options, bounded=False).limits
  free = select(scores, groups, 150, 0, SelectOptions("random"))
  with pytest.raises(InputError, match=r"strategy mine keeps .* more than select.most"):
    limited.judge_limits(limits, free, "mine")
  few = select(scores, groups, 1, 0, SelectOptions("random"))
  with pytest.raises(
    InputError, match=r"strategy mine keeps [01] .* fewer than .*least"
  ):
    limited.judge_limits(limits, few, "mine")
