"""The mixture of two Gaussians a group."""

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

from mllm_selector_jax.selection import two_gaussians


def upper_component(values, groups):
  return two_gaussians.fit_mixtures(values, groups).upper(values, groups)


def two_humps(rng, low, high, gap=4.0):
  return np.concatenate([rng.normal(0.5, 0.3, low), rng.normal(0.5 + gap, 1.0, high)])


@pytest.mark.parametrize("seed", range(5))
def test_a_mixture_is_the_likeliest_that_sklearn_finds(seed):
  values = two_humps(np.random.default_rng(seed), 200, 40)
  oracle = GaussianMixture(2, tol=1e-9, max_iter=2000, random_state=0, reg_covar=1e-9)
  oracle.fit(values[:, None])
  upper = oracle.predict_proba(values[:, None])[:, oracle.means_[:, 0].argmax()]
  upper[values <= oracle.means_.min()] = 0
  found = upper_component(values, np.zeros(240, int))
  np.testing.assert_allclose(found, upper, atol=1e-3)


def test_each_group_has_its_own_mixture_in_any_order_and_scale():
  rng = np.random.default_rng(0)
  values = np.concatenate([two_humps(rng, 90, 10), 7 + 3 * two_humps(rng, 60, 20)])
  groups = np.repeat([4, 1], [100, 80])
  found = upper_component(values, groups)
  alone = upper_component(values[:100], np.zeros(100, int))
  np.testing.assert_array_equal(found[:100], alone)
  order = rng.permutation(180)
  again = upper_component(values[order], groups[order])
  np.testing.assert_array_equal(again, found[order])
  moved = upper_component(5 * values + 2, groups)
  np.testing.assert_allclose(moved, found, atol=1e-6)


@pytest.mark.parametrize(
  "values", [np.ones(40), np.r_[np.zeros(39), 1e30], np.linspace(0, 1, 2), [3.0]]
)
def test_odd_groups_give_a_probability(values):
  found = upper_component(np.asarray(values), np.zeros(len(values), int))
  assert ((found >= 0) & (found <= 1)).all()
  assert len(set(values)) > 1 or not found.any()


def test_a_large_group_is_fitted_to_its_ranks(monkeypatch):
  rng = np.random.default_rng(0)
  values = np.concatenate([two_humps(rng, 9_000, 1_000), two_humps(rng, 90, 10)])
  groups = np.repeat([0, 1], [10_000, 100])
  found = upper_component(values, groups)
  monkeypatch.setattr(two_gaussians, "FIT_VALUES", 10_000)
  whole = upper_component(values, groups)
  np.testing.assert_array_equal(found[10_000:], whole[10_000:])
  assert 0 < np.abs(found - whole).max() < 0.1
  assert ((found > 0.8) != (whole > 0.8)).mean() < 0.002
