"""What a search compares, and how held-out rows count."""

import math

import numpy as np
import pytest

from mllm_selector_jax.pipeline.search import development, search_space
from mllm_selector_jax.types import InputError
from tests import small_run

SEARCH = {
  "select.search.kl_weight": "0.1,1",
  "select.groups": "source",
}


def test_candidates_are_drawn_from_all_products(base):
  settings = {**SEARCH, "select.search.tempering": "0,1", "select.search.bound": "none"}
  settings["select.search.candidates"] = 5
  cfg = small_run.make_config(base, **settings)
  found = search_space.list_candidates(cfg)
  assert len(found) == 5 and len({str(each) for each in found}) == 5
  assert found[0] == {
    "strategy": "kl",
    "signal": "loss",
    "kl_weight": 0.4,
    "groups": "source",
    "tempering": 0.5,
    "bound": "mixture",
  }
  assert search_space.list_candidates(cfg) == found
  settings["select.search.candidates"] = 100
  assert (
    len(search_space.list_candidates(small_run.make_config(base, **settings))) == 19
  )
  for key, value in (("strategy", "grouped"), ("target", "pool")):
    cfg = small_run.make_config(base, **settings, **{f"select.{key}": value})
    with pytest.raises(InputError, match=rf"select\.{key} is .*'{value}'"):
      search_space.list_candidates(cfg)


def test_strategies_are_candidates_with_the_config_s_other_settings(base):
  settings = {"select.search.candidates": 4, "select.search.strategy": "kl,grouped"}
  for own, wanted in (
    ("kl", ["kl", "random", "grouped"]),
    ("random", ["random", "kl", "grouped"]),
    ("stratified", ["stratified", "random", "kl", "grouped"]),
  ):
    cfg = small_run.make_config(base, **settings, **{"select.strategy": own})
    found = search_space.list_candidates(cfg)
    assert [each.pop("strategy") for each in found] == wanted
    assert all(each == found[0] for each in found)
  cfg.select.strategy, cfg.select.search.strategy = "random", "random"
  with pytest.raises(InputError, match="nothing to compare"):
    search_space.list_candidates(cfg)


def test_rows_score_the_probability_of_their_answer():
  score = development.rate_rows(np.array([0.0, math.log(2), np.nan, np.inf]))
  np.testing.assert_allclose(score, [1, 0.5, 0, 0])
  found = development.summarise(np.array(["b", "a", "b", "a"]), score)
  assert found == {
    "a": {"value": 0.25, "count": 2},
    "b": {"value": 0.5, "count": 2},
  }


def test_groups_weigh_as_their_target_shares():
  group = np.array([0, 0, 0, 2, 2])
  weight = development.weigh_groups(group, np.array([0.3, 0.5, 0.2]))
  np.testing.assert_allclose(weight, [0.2, 0.2, 0.2, 0.2, 0.2])
  weight = development.weigh_groups(group)
  np.testing.assert_allclose(weight, [1 / 6] * 3 + [1 / 4] * 2)
  weight = development.weigh_groups(group, np.array([0.0, 1.0, 0.0]))
  np.testing.assert_allclose(weight, [0.2] * 5)  # the target has none of these groups
