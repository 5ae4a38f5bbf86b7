"""Suspects by a mixture, the gate that spares the tail, and halves."""

import dataclasses

import numpy as np
import pytest

from mllm_selector_jax.selection import draws, heldout_loss
from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.reasons import CODE
from mllm_selector_jax.types import InputError
from tests.selection.test_mixture import two_humps


def test_suspects_are_the_upper_hump_and_the_tail_is_spared():
  rng = np.random.default_rng(0)
  sizes = {"known": (170, 30), "unable": (170, 30), "small": (20, 5)}
  loss = np.concatenate([two_humps(rng, *each, gap=6.0) for each in sizes.values()])
  wrong = np.concatenate([np.repeat([False, True], each) for each in sizes.values()])
  groups = np.repeat(np.arange(3), [200, 200, 25])
  right = np.where(wrong | (groups == 1), 0.0, 1.0)
  loss[:2] = np.nan
  found = heldout_loss.find_doubted(heldout_loss.Doubt(loss, right), groups)
  taken = found.suspect[groups == 0]
  assert (taken & wrong[:200]).sum() >= 28 and (taken & ~wrong[:200]).sum() == 0
  assert not found.suspect[groups > 0].any()
  assert found.spared == {
    "groups of fewer than 30 rows": {"groups": 1, "rows": 25},
    "groups of which less than 40% is known": {"groups": 1, "rows": 200},
    "rows of which nothing is known": {"groups": 1, "rows": 2},
  }
  judged = (groups == 0) & np.isfinite(loss)
  np.testing.assert_array_equal(found.judged, judged)
  # A row that the held-out model gets right is not suspect, whatever its loss.
  found = heldout_loss.find_doubted(
    heldout_loss.Doubt(loss, np.ones(len(loss))), groups
  )
  assert not found.suspect.any()
  nothing = heldout_loss.Doubt(np.full(425, np.nan), right)
  assert not heldout_loss.find_doubted(nothing, groups).suspect.any()


def test_no_group_loses_more_than_its_part():
  rng = np.random.default_rng(0)
  loss = np.concatenate([two_humps(rng, 110, 90), two_humps(rng, 170, 30)])
  right = np.concatenate([np.repeat([1, 0], [110, 90]), np.repeat([1, 0], [170, 30])])
  groups = np.repeat([0, 1], 200)
  found = heldout_loss.find_doubted(heldout_loss.Doubt(loss, right), groups).suspect
  assert found[:200].sum() == 60 and 25 <= found[200:].sum() <= 30
  assert loss[:200][found[:200]].min() > np.sort(loss[:200])[-61]
  alone = heldout_loss.find_doubted(
    heldout_loss.Doubt(loss[200:], right[200:]), groups[200:]
  )
  np.testing.assert_array_equal(alone.suspect, found[200:])


@pytest.mark.parametrize("parts", [2, 4])
def test_halves_go_by_content_and_spread_every_group(parts):
  rng = np.random.default_rng(0)
  key = rng.integers(0, 2**63, 500).astype(np.uint64)
  key[400:450] = key[:50]  # copies
  groups = rng.integers(0, 7, 500)
  groups[400:450] = groups[:50]
  tie = draws.draw(0, key, "thorough")
  part = heldout_loss.draw_halves(tie, groups, parts)
  np.testing.assert_array_equal(part[400:450], part[:50])
  for group in range(7):
    own = np.unique(tie[groups == group], return_index=True)[1]
    sizes = np.bincount(part[groups == group][own], minlength=parts)
    assert sizes.max() - sizes.min() <= 1
  order = rng.permutation(500)
  again = heldout_loss.draw_halves(tie[order], groups[order], parts)
  np.testing.assert_array_equal(again, part[order])
  assert len(heldout_loss.draw_halves(tie[:0], groups[:0])) == 0


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
  expected = heldout_loss.find_doubted(heldout_loss.Doubt(loss, right), groups.index)
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
