"""Mixtures of held-out losses, the gate that spares the tail, and halves."""

import dataclasses

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from mllm_selector_jax.selection import doubt, draws
from mllm_selector_jax.selection.candidates import CODE, Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.types import InputError


def two_humps(rng, low, high, gap=4.0):
  return np.concatenate([rng.normal(0.5, 0.3, low), rng.normal(0.5 + gap, 1.0, high)])


@pytest.mark.parametrize("seed", range(5))
def test_a_mixture_is_the_likeliest_that_sklearn_finds(seed):
  values = two_humps(np.random.default_rng(seed), 200, 40)
  oracle = GaussianMixture(2, tol=1e-9, max_iter=2000, random_state=0, reg_covar=1e-9)
  oracle.fit(values[:, None])
  upper = oracle.predict_proba(values[:, None])[:, oracle.means_[:, 0].argmax()]
  upper[values <= oracle.means_.min()] = 0
  found = doubt.upper_component(values, np.zeros(240, int))
  np.testing.assert_allclose(found, upper, atol=1e-3)


def test_each_group_has_its_own_mixture_in_any_order_and_scale():
  rng = np.random.default_rng(0)
  values = np.concatenate([two_humps(rng, 90, 10), 7 + 3 * two_humps(rng, 60, 20)])
  groups = np.repeat([4, 1], [100, 80])
  found = doubt.upper_component(values, groups)
  alone = doubt.upper_component(values[:100], np.zeros(100, int))
  np.testing.assert_array_equal(found[:100], alone)
  order = rng.permutation(180)
  again = doubt.upper_component(values[order], groups[order])
  np.testing.assert_array_equal(again, found[order])
  moved = doubt.upper_component(5 * values + 2, groups)
  np.testing.assert_allclose(moved, found, atol=1e-6)


@pytest.mark.parametrize(
  "values", [np.ones(40), np.r_[np.zeros(39), 1e30], np.linspace(0, 1, 2), [3.0]]
)
def test_odd_groups_give_a_probability(values):
  found = doubt.upper_component(np.asarray(values), np.zeros(len(values), int))
  assert ((found >= 0) & (found <= 1)).all()
  assert len(set(values)) > 1 or not found.any()


def test_suspects_are_the_upper_hump_and_the_tail_is_spared():
  rng = np.random.default_rng(0)
  sizes = {"known": (170, 30), "unable": (170, 30), "small": (20, 5)}
  loss = np.concatenate([two_humps(rng, *each, gap=6.0) for each in sizes.values()])
  wrong = np.concatenate([np.repeat([False, True], each) for each in sizes.values()])
  groups = np.repeat(np.arange(3), [200, 200, 25])
  right = np.where(wrong | (groups == 1), 0.0, 1.0)
  loss[:2] = np.nan
  found = doubt.find_doubted(doubt.Doubt(loss, right), groups)
  taken = found.suspect[groups == 0]
  assert (taken & wrong[:200]).sum() >= 28 and (taken & ~wrong[:200]).sum() == 0
  assert not found.suspect[groups > 0].any()
  assert found.spared == {
    "groups of fewer than 30 rows": {"groups": 1, "rows": 25},
    "groups of which less than 40% is known": {"groups": 1, "rows": 200},
    "rows of which nothing is known": {"groups": 1, "rows": 2},
  }
  # A row that the held-out model gets right is not suspect, whatever its loss.
  found = doubt.find_doubted(doubt.Doubt(loss, np.ones(len(loss))), groups)
  assert not found.suspect.any()
  nothing = doubt.Doubt(np.full(425, np.nan), right)
  assert not doubt.find_doubted(nothing, groups).suspect.any()


@pytest.mark.parametrize("parts", [2, 4])
def test_halves_go_by_content_and_spread_every_group(parts):
  rng = np.random.default_rng(0)
  key = rng.integers(0, 2**63, 500).astype(np.uint64)
  key[400:450] = key[:50]  # copies
  groups = rng.integers(0, 7, 500)
  groups[400:450] = groups[:50]
  tie = draws.draw(0, key, "thorough")
  part = doubt.draw_halves(tie, groups, parts)
  np.testing.assert_array_equal(part[400:450], part[:50])
  for group in range(7):
    own = np.unique(tie[groups == group], return_index=True)[1]
    sizes = np.bincount(part[groups == group][own], minlength=parts)
    assert sizes.max() - sizes.min() <= 1
  order = rng.permutation(500)
  again = doubt.draw_halves(tie[order], groups[order], parts)
  np.testing.assert_array_equal(again, part[order])
  assert len(doubt.draw_halves(tie[:0], groups[:0])) == 0


def test_the_bound_mixture_goes_by_the_seeds_own_loss():
  rng = np.random.default_rng(1)
  loss = np.concatenate([two_humps(rng, 170, 30, gap=6.0) for _ in range(2)])
  wrong = np.tile(np.repeat([False, True], [170, 30]), 2)
  right = np.where(wrong | (np.arange(400) >= 200), 0.0, 1.0)  # the second is unknown
  signals = {"loss": loss, "accuracy": right}
  # It goes by the loss, whatever the necessity.
  scores = Scores(rng.random(400), np.arange(400, dtype=np.uint64), signals)
  groups = Groups(np.repeat([0, 1], 200), ("a", "b"))
  options = SelectOptions(bound="mixture")
  found = sort_out(scores, groups, 0, options, True)
  expected = doubt.find_doubted(doubt.Doubt(loss, right), groups.index)
  np.testing.assert_array_equal(found.suspect, expected.suspect)
  assert (found.suspect & wrong)[:200].sum() >= 28 and not found.suspect[200:].any()
  assert found.spared == {
    "groups of which less than 40% is known": {"groups": 1, "rows": 200}
  }
  assert set(found.code[found.suspect]) == {CODE["suspect: unlikely to the seed model"]}
  assert not sort_out(scores, groups, 0, options, False).suspect.any()
  bare = dataclasses.replace(scores, signals={"loss": loss})
  with pytest.raises(InputError, match=r"select\.bound mixture needs .*'accuracy'"):
    sort_out(bare, groups, 0, options, True)
