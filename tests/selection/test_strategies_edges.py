"""Strategies at their edges: token budgets, odd pools, input errors, caps."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm_selector_jax.selection.eligibility import Scores
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.strategies import STRATEGIES, select
from mllm_selector_jax.types import InputError
from tests.selection.pools import make_pool


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(60, 9000), st.sampled_from([*STRATEGIES]))
def test_a_budget_in_tokens_is_the_longest_prefix(seed, tokens, strategy):
  scores, groups = make_pool(150, seed)
  options = SelectOptions(strategy)
  selection = select(scores, groups, f"{tokens}tok", 0, options)
  count = int(selection.kept.sum())
  assert scores.tokens[selection.kept].sum() <= tokens
  same = select(scores, groups, count, 0, options)
  np.testing.assert_array_equal(same.kept, selection.kept)
  if count < 150:
    more = select(scores, groups, count + 1, 0, options)
    assert scores.tokens[more.kept].sum() > tokens


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_degenerate_pools(strategy):
  options = SelectOptions(strategy)
  signals = ("loss", "accuracy", "visual", "ifd", "perplexity", "el2n", "grand")

  def make(values, keys):
    extra = {name: np.ones(len(values)) for name in signals}
    vectors = np.ones((len(values), 3), np.float32)
    return Scores(values, keys, extra, vectors, reference=np.ones(len(values), bool))

  one = make(np.array([2.0]), np.array([7], np.uint64))
  assert select(one, np.zeros(1, int), 1, 0, options).kept.tolist() == [True]
  # All scores equal, one group, equal contents: rows decide.
  flat = make(np.ones(40), np.zeros(40, np.uint64))
  kept = select(flat, np.zeros(40, int), 10, 0, options).kept
  assert kept.sum() == 10
  if strategy not in ("visnec", "d2"):  # neighbours and clusters decide first
    assert np.flatnonzero(kept).tolist() == list(range(10))
  with pytest.raises(InputError, match="nothing to select from"):
    select(make(np.zeros(0), np.zeros(0, np.uint64)), np.zeros(0, int), 1, 0, options)


def test_input_errors_say_what_to_do():
  scores, groups = make_pool(50)
  cases = [
    (dict(signals={}), SelectOptions(), 10, "select.bound mixture needs"),
    (dict(signals={}), SelectOptions(bound=0.15, competence=0.6), 10, "score.signals"),
    (dict(signals={}), SelectOptions(visual=True), 10, "select.visual needs"),
    (dict(signals={}), SelectOptions("ifd"), 10, "strategy ifd needs the signal 'ifd'"),
    (dict(embeddings=None), SelectOptions("d2"), 10, "d2 needs embeddings"),
    (dict(forced_in=np.ones(50, bool)), SelectOptions(), 10, "50 rows are forced in"),
    (
      dict(forced_in=np.ones(50, bool), left_out=np.ones(50, bool)),
      SelectOptions(),
      10,
      "both forced in and left out",
    ),
    (dict(forced_in=np.ones(50, bool)), SelectOptions(), "60tok", "forced in have"),
    (dict(left_out=np.ones(50, bool)), SelectOptions(), 10, "no row of the pool"),
    (dict(tokens=None), SelectOptions(), "60tok", "token counts are not known"),
    ({}, SelectOptions(), "0", "select.budget is '0'"),
    ({}, SelectOptions(target="given", target_shares=(1.0,)), 10, "1 target shares"),
  ]
  for fields, options, budget, message in cases:
    with pytest.raises(InputError, match=message):
      select(dataclasses.replace(scores, **fields), groups, budget, 0, options)


def test_two_hundred_thousand_rows():
  rng = np.random.default_rng(0)
  loss, key = rng.random(200_000), rng.integers(0, 2**64, 200_000, dtype=np.uint64)
  signals = {"loss": loss, "accuracy": (loss < 0.7).astype(float)}
  scores = Scores(loss, key, signals)
  selection = select(scores, rng.integers(0, 500, 200_000), "10%")
  assert selection.kept.sum() == 20_000 and abs(selection.certificate.gap) < 1e-9


def test_no_group_gives_more_than_its_cap():
  scores, groups = make_pool()
  options = SelectOptions(cap=0.3, bound=0.0, kl_weight=0.05)
  table = select(scores, groups, 150, 0, options)
  room = np.ceil(0.3 * table.table.size)
  assert np.all(table.table.kept <= room) and np.any(table.table.kept == room)
  assert "above its group's cap" in table.reason
  assert abs(table.certificate.gap) < 1e-9
  short = select(scores, groups, 500, 0, options)
  np.testing.assert_array_equal(short.table.kept, room)
  assert "above a group's cap" in short.warnings[-1]


def test_a_target_like_a_set_of_samples():
  scores, groups = make_pool()
  like = (groups.index == 2) & (np.arange(600) % 2 > 0)
  options = SelectOptions(target="like", floor=0.0, bound=0.0)
  few = dataclasses.replace(scores, like=like)
  table = select(few, groups, 20, 0, options).table
  assert table.kept.tolist() == [0, 0, 20, 0, 0, 0, 0]
  with pytest.raises(InputError, match=r"name them in select.like"):
    select(scores, groups, 20, 0, options)
