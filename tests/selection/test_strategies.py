"""Strategies: what they promise of any pool."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from mllm_selector_jax.selection.eligibility import Scores
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.reasons import REASONS
from mllm_selector_jax.selection.strategies import STRATEGIES, select
from mllm_selector_jax.types import InputError
from tests.selection.pools import make_pool, permute

CASES = [SelectOptions(strategy=name) for name in STRATEGIES] + [
  SelectOptions(within="sample"),
  SelectOptions(within="top"),
  SelectOptions(kl_weight=0.0),
  SelectOptions(kl_weight=0.0, within="sample", floor=0.5),
  SelectOptions(kl_weight=1e6, target="uniform"),
  SelectOptions(bound=0.3, competence=0.6, visual=True, floor=1.0),
  SelectOptions(cap=0.4, duplicates=0.97, target="pool"),
  SelectOptions(target="given", target_shares=(0.5, 0, 0.1, 0.1, 0.1, 0.2, 0)),
]
IDS = [f"{o.strategy}-{o.within}-{o.kl_weight:g}-{o.target}-{o.bound}" for o in CASES]


@pytest.mark.parametrize("options", CASES, ids=IDS)
def test_every_budget_holds_the_smaller_ones(options):
  scores, groups = make_pool(200)
  before = np.zeros(200, bool)
  for budget in [*range(1, 201, 3), 200]:
    selection = select(scores, groups, budget, 3, options)
    assert not np.any(before & ~selection.kept), budget
    before = selection.kept


@pytest.mark.parametrize("options", CASES, ids=IDS)
def test_the_order_of_rows_is_no_matter(options):
  scores, groups = make_pool()
  order = np.random.default_rng(9).permutation(600)
  one = select(scores, groups, "20%", 5, options)
  other = select(*permute(scores, groups, order), "20%", 5, options)
  for name in ("kept", "rank", "group", "normalised_necessity", "gain", "reason"):
    np.testing.assert_array_equal(
      getattr(one, name)[order], getattr(other, name), err_msg=name
    )
  np.testing.assert_equal(one.threshold, other.threshold)
  np.testing.assert_equal(one.table, other.table)


@pytest.mark.parametrize("options", CASES, ids=IDS)
def test_every_row_is_accounted_for(options):
  rng = np.random.default_rng(4)
  forced, left_out = np.zeros(600, bool), np.zeros(600, bool)
  some = rng.permutation(600)
  forced[some[:5]], left_out[some[5:15]] = True, True
  scores, groups = make_pool(forced_in=forced, left_out=left_out)
  selection = select(scores, groups, 120, 0, options)
  assert selection.kept.sum() == 120
  assert np.all(selection.kept[forced]) and not np.any(selection.kept[left_out])
  assert sorted(selection.rank[selection.kept]) == list(range(120))
  assert np.all(selection.rank[~selection.kept] == -1)
  assert set(selection.reason) <= set(REASONS)
  assert set(selection.reason[left_out]) == {"left out"}
  assert set(selection.reason[forced]) == {"forced in"}
  kept_reasons = {"kept", "floor", "forced in", "kept to fill the budget"}
  kept_reasons |= {"in the reference"}
  np.testing.assert_array_equal(
    [reason in kept_reasons for reason in selection.reason], selection.kept
  )
  suspect = np.char.startswith(selection.reason.astype(str), "suspect")
  assert not np.any(selection.kept & suspect)
  table = selection.table
  assert table.kept.sum() == 120 and table.size.sum() == 600
  assert table.reached.sum() == pytest.approx(1)
  assert np.all(table.kept >= table.floor)
  decided = selection.kept & (selection.reason == "kept")
  if np.isfinite(selection.threshold):
    assert selection.gain[decided].min() == selection.threshold
    lost = selection.reason == "below threshold"
    assert np.all(selection.gain[lost] < selection.threshold)
    tied = selection.reason == "tied with the threshold"
    assert np.all(selection.gain[tied] == selection.threshold)


@pytest.mark.parametrize(
  "options",
  [o for o in CASES if o.strategy == "kl"],
  ids=[i for i in IDS if i.startswith("kl")],
)
def test_kl_comes_with_its_certificate(options):
  scores, groups = make_pool()
  for budget in (1, 30, 120, 400):
    proof = select(scores, groups, budget, 0, options).certificate
    assert abs(proof.gap) < 1e-9 * max(1, options.kl_weight)


def test_kl_is_the_same_on_one_and_on_eight_devices():
  scores, groups = make_pool()
  one = select(scores, groups, "20%")
  with jax.set_mesh(jax.make_mesh((8,), ("data",), (AxisType.Auto,))):
    eight = select(scores, groups, "20%")
  for name in ("kept", "rank", "gain", "normalised_necessity", "reason"):
    np.testing.assert_array_equal(getattr(one, name), getattr(eight, name))
  assert one.threshold == eight.threshold and one.certificate == eight.certificate


@pytest.mark.parametrize("weight", [0.3, 0.4, 1.0])
@pytest.mark.parametrize("within", ["uniform", "sample"])
def test_quotas_follow_the_closed_form(weight, within):
  scores, groups = make_pool(20_000, count=5)
  options = SelectOptions(kl_weight=weight, within=within, floor=0.0, bound=0.0)
  table = select(scores, groups, 500, 0, options).table
  power = table.target * np.exp(table.mean / weight)
  np.testing.assert_allclose(table.quota, 500 * power / power.sum())
  # Rounded like a divisor method: within a row or so of the quota.
  assert np.abs(table.kept - table.quota).max() < 1.5


def test_a_large_weight_is_stratified_sampling_by_the_target():
  scores, groups = make_pool(5000, count=5)
  for target in ("pool", "tempered", "uniform"):
    options = SelectOptions(kl_weight=1e7, target=target, floor=0.0, bound=0.0)
    table = select(scores, groups, 300, 0, options).table
    if target == "uniform":
      assert np.ptp(table.kept) <= 1
    assert np.abs(table.kept - 300 * table.target).max() < 1.5


def test_stratified_is_proportional():
  scores, groups = make_pool(5000, count=5)
  table = select(scores, groups, "10%", 0, SelectOptions("stratified")).table
  np.testing.assert_array_less(np.abs(table.kept - 0.1 * table.size), 1)


def test_random_is_uniform_and_another_draw_than_kl():
  scores, groups = make_pool(20_000)
  random = select(scores, groups, "50%", 0, SelectOptions("random"))
  again = select(scores, groups, "50%", 1, SelectOptions("random"))
  other = select(scores, groups, "50%", 0, SelectOptions("stratified"))
  for each in (again, other):
    assert abs((random.kept & each.kept).mean() - 0.25) < 0.015
  assert abs(random.normalised_necessity[random.kept].mean() - 0.5) < 0.01
  assert np.isnan(random.gain).all() and np.isnan(random.threshold)


def test_reference_is_itself_at_its_size_and_random_rows_beyond():
  scores, groups = make_pool(2000)
  size = int(scores.reference.sum())
  options = SelectOptions("reference")
  exact = select(scores, groups, size, 0, options)
  np.testing.assert_array_equal(exact.kept, scores.reference)
  assert set(exact.reason[exact.kept]) == {"in the reference"}
  half = select(scores, groups, size // 2, 0, options)
  assert not np.any(half.kept & ~scores.reference)
  more = select(scores, groups, size + 50, 0, options)
  assert np.all(more.kept[scores.reference])
  assert np.sum(more.reason == "kept") == 50
  with pytest.raises(InputError, match="give the mixture that is trained on today"):
    select(dataclasses.replace(scores, reference=None), groups, 5, 0, options)


def test_top_takes_the_highest():
  scores, groups = make_pool(seen=None)
  selection = select(scores, groups, 60, 0, SelectOptions("top"))
  highest = np.argsort(-scores.necessity)[:60]
  np.testing.assert_array_equal(np.sort(highest), np.flatnonzero(selection.kept))
  np.testing.assert_array_equal(selection.rank[highest], np.arange(60))


def test_grouped_quotas_rise_with_necessity():
  scores, groups = make_pool(6000)
  options = SelectOptions("grouped", bound=0.0)
  table = select(scores, groups, 600, 0, options).table
  assert table.name[0] == "necessity 0.00-0.20"
  np.testing.assert_allclose(table.kept, [40, 80, 120, 160, 200], atol=1)
  # Where the top stratum runs out the others go on.
  table = select(scores, groups, 4800, 0, options).table
  assert table.kept[-1] == table.size[-1] and table.kept.sum() == 4800


def test_sample_prefers_necessity_inside_a_group_and_top_takes_it():
  scores, _ = make_pool(4000, seen=None)
  groups = np.zeros(4000, np.int64)
  means = {}
  for within, temperature in (
    ("uniform", 1),
    ("sample", 0.5),
    ("sample", 0.05),
    ("top", 1),
  ):
    options = SelectOptions(within=within, temperature=temperature, bound=0.0)
    kept = select(scores, groups, 400, 0, options)
    means[within, temperature] = kept.normalised_necessity[kept.kept].mean()
  ordered = list(means.values())
  assert ordered == sorted(ordered) and abs(ordered[0] - 0.5) < 0.05
  assert ordered[-1] == pytest.approx(0.95, abs=1e-3)


def test_floors_keep_easy_groups_alive():
  necessity = np.repeat([0.0, 1.0], 500) + np.linspace(0, 0.1, 1000)
  scores = Scores(necessity, np.arange(1000, dtype=np.uint64))
  groups = np.repeat([0, 1], 500)
  options = SelectOptions(kl_weight=0.05, floor=0.2, bound=0.0)
  selection = select(scores, groups, 100, 0, options)
  assert selection.table.floor.tolist() == [10, 10]
  assert selection.table.kept.tolist() == [10, 90]
  reasons = selection.reason[:500][selection.kept[:500]]
  assert set(reasons) == {"floor"}
  assert set(selection.reason[500:][selection.kept[500:]]) == {"kept"}
  without = select(scores, groups, 100, 0, dataclasses.replace(options, floor=0.0))
  assert without.table.kept.tolist() == [0, 100]


def test_suspects_only_fill_what_is_left_of_the_budget():
  scores, groups = make_pool()
  for strategy in ("kl", "grouped"):
    options = SelectOptions(strategy, bound=0.15)
    some = select(scores, groups, "80%", 0, options)
    assert not some.warnings and "kept to fill the budget" not in some.reason
    most = select(scores, groups, "95%", 0, options)
    assert most.kept.sum() == 570
    assert "58 suspect or dropped rows are kept" in most.warnings[0]
    everything = select(scores, groups, 601, 0, options)
    assert everything.kept.all()
    assert "above the 600 rows" in everything.warnings[0]


def test_a_target_share_of_zero_is_taken_by_the_floor_alone():
  scores, groups = make_pool(count=2)
  options = SelectOptions(target="given", target_shares=(0.0, 1.0), floor=0.0)
  selection = select(scores, groups, 600, 0, options)
  assert selection.table.kept[0] == 0
  assert selection.table.kept[1] == selection.table.size[1]
  assert "target share is 0" in selection.warnings[-1]
  floored = select(scores, groups, 100, 0, dataclasses.replace(options, floor=0.5))
  assert floored.table.kept[0] == floored.table.floor[0] > 0
  assert set(floored.reason[floored.kept & (floored.group == 0)]) == {"floor"}
