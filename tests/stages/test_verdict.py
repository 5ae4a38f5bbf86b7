"""Whether selecting pays: the rule, the sentence, and what the trials may cost."""

import ml_collections
import numpy as np
import pytest

from mllm_selector_jax.pipeline.search import search_arms, search_costs, verdict
from mllm_selector_jax.pipeline.search.development import Measure, Split
from mllm_selector_jax.types import InputError


def draw_measures(rng, gain, count=300):
  """Two trials on the same questions, the first better by `gain` on average."""
  weight = rng.uniform(0.5, 2, count)
  weight /= weight.sum()
  names = [("task", str(number)) for number in range(count)]
  hard = rng.uniform(0.3, 0.7, count)
  chosen = hard + rng.normal(gain, 0.1, count)
  return Measure(names, chosen, weight), Measure(names, hard, weight)


def test_the_interval_is_that_of_a_weighted_mean_of_pairs():
  chosen, control = draw_measures(np.random.default_rng(0), 0.05)
  found = verdict.judge(chosen, control, 0.9)
  difference, weight = chosen.score - control.score, chosen.weight
  mean = np.average(difference, weights=weight)
  # With equal weights this is the square of the standard error of a mean.
  error = np.average((difference - mean) ** 2 * weight, weights=weight)
  added = 2 * np.average(weight, weights=weight) ** 2
  half = 1.6448536 * np.sqrt(error + added)
  assert found["difference"] == pytest.approx(mean)
  assert (found["low"], found["high"]) == pytest.approx((mean - half, mean + half))
  assert found["value"] - found["random"] == pytest.approx(mean)
  assert found["outcome"] == verdict.PAYS and found["questions"] == 300
  equal = chosen._replace(weight=np.full(300, 1 / 300))
  found = verdict.judge(equal, control, 0.9)
  half = 1.6448536 * np.sqrt(difference.var() / 300 + 2 / 300**2)
  assert (found["high"] - found["low"]) / 2 == pytest.approx(half)


def test_few_questions_decide_nothing():
  weight = np.array([0.5, 0.5])
  names = [("a", "1"), ("a", "2")]
  won = Measure(names, np.ones(2), weight)
  found = verdict.judge(won, won._replace(score=np.zeros(2)), 0.9)
  assert found["outcome"] == verdict.UNCLEAR and found["difference"] == 1.0


@pytest.mark.parametrize(
  ("gain", "outcome", "least", "most"),
  [
    (0.0, verdict.PAYS, 0.0, 0.08),  # the level allows .05
    (0.0, verdict.UNCLEAR, 0.84, 1.0),
    (0.03, verdict.PAYS, 0.85, 1.0),
    (-0.03, verdict.HARMS, 0.85, 1.0),
    (-0.03, verdict.PAYS, 0.0, 0.0),
  ],
)
def test_random_rows_are_seldom_replaced_by_what_is_not_better(
  gain, outcome, least, most
):
  rng, draws = np.random.default_rng(1), 200
  found = [
    verdict.judge(*draw_measures(rng, gain), 0.9)["outcome"] for _ in range(draws)
  ]
  assert least <= found.count(outcome) / draws <= most


@pytest.mark.parametrize(
  ("outcome", "strategy", "said"),
  [
    (verdict.PAYS, "kl", "Selecting is expected to pay here: kl scores 0.431"),
    (verdict.PAYS, "grouped", "grouped is expected to pay here, and was better than"),
    (verdict.UNCLEAR, "kl", "Selecting adds nothing here that these trials can show"),
    (verdict.HARMS, "kl", "Selecting is expected to harm here: kl scores 0.431"),
  ],
)
def test_the_sentence_says_what_was_found_and_what_follows(outcome, strategy, said):
  found = {"outcome": outcome, "value": 0.431, "random": 0.402, "difference": 0.029}
  found |= {"low": 0.006, "high": 0.052, "level": 0.9, "questions": 3000}
  found |= {"strategy": strategy, "questions_are": "held-out rows", "of_full": 0.0412}
  text = verdict.describe(found, "kl")
  assert text.startswith(said)
  assert (
    "on 3,000 held-out rows (difference +0.029, 90% interval +0.006 to +0.052), at 4.1%"
    " of the FLOPs of tuning on the full pool." in text
  )
  assert ("takes random rows" in text) == (outcome != verdict.PAYS)


@pytest.mark.parametrize(
  ("contenders", "halving", "sizes"),
  [(1, 2, [2]), (2, 2, [2, 2]), (3, 2, [3, 2, 2]), (7, 3, [7, 3, 2])],
)
def test_rungs_halve_and_the_last_has_one_beside_random_rows(
  contenders, halving, sizes
):
  assert search_arms.list_sizes(contenders, halving) == sizes


def make_cfg(**changes):
  values = {"steps": None, "cost": 0.05, "halving": 2, "development": "10%", **changes}
  return ml_collections.ConfigDict(
    {"select": {"search": values}, "tune": {"batch": 10}}
  )


def make_costs(epochs=10):
  tune = np.full(1000, 3.0)
  tune[:100] = 0.0  # set aside
  return search_costs.Costs(tune, tune / 3, epochs)


def make_split(count):
  tie = np.random.default_rng(0).permutation(count).astype(np.uint64)
  return Split(np.arange(100, 100 + count), np.zeros(count, int), np.ones(1), tie)


def test_steps_are_as_many_as_the_share_of_the_full_tune_pays_for():
  costs, measured = make_costs(), make_split(90)
  assert costs.full == 900 * 3.0 * 10
  for sizes in ([2], [3, 2, 2]):
    steps = search_costs.plan_steps(make_cfg(), costs, sizes, measured)

    def spend(steps, sizes=sizes):
      tunes = [size * steps * 2**rung * 10 * 3.0 for rung, size in enumerate(sizes)]
      return sum(tunes) + sum(sizes) * 90.0

    assert spend(steps) <= 0.05 * costs.full < spend(steps + 1)
  assert search_costs.plan_steps(make_cfg(steps=7), costs, [2], measured) == 7
  with pytest.raises(InputError, match=r"not pay for one step of each of its 2 trials"):
    search_costs.plan_steps(make_cfg(cost=0.006), costs, [2], measured)


def test_measuring_takes_a_third_of_the_search_at_most():
  held_out = make_split(90)
  whole = search_costs.plan_measure(make_cfg(), make_costs(), held_out, 2)
  assert whole.rows.tolist() == held_out.rows.tolist()
  costs = make_costs(epochs=1)  # 2 trials on 90 rows are .067 of it
  drawn = search_costs.plan_measure(make_cfg(cost=0.1), costs, held_out, 2)
  assert len(drawn.rows) == 45 == int(0.1 * costs.full / 3 / 2)
  assert set(held_out.tie[drawn.rows - 100]) == set(range(45)) == set(drawn.tie)
  assert (np.diff(drawn.rows) > 0).all()
  with pytest.raises(InputError, match=r"pays for 2 trials on 9 held-out rows only; g"):
    search_costs.plan_measure(make_cfg(cost=0.02), costs, held_out, 2)
  with pytest.raises(InputError, match=r"holds out less than one of 900 rows"):
    search_costs.plan_measure(make_cfg(), costs, make_split(0), 2)


def test_a_comparison_uses_the_strategy_s_own_best_settings():
  candidates = [
    {"strategy": "kl", "kl_weight": 0.4},
    {"strategy": "random", "kl_weight": 0.4},
    {"strategy": "grouped", "kl_weight": 0.4},
    {"strategy": "kl", "kl_weight": 1.0},
  ]
  lines = [(0, 1, 0.3), (2, 1, 0.9), (3, 1, 0.4), (2, 2, 0.9), (3, 2, 0.2), (2, 4, 0.9)]
  trials = [
    {"candidate": number, "steps": steps, "value": value}
    for number, steps, value in lines
  ]
  result = {"candidates": candidates, "trials": trials}
  assert search_arms.read_own(result, "kl") == {"kl_weight": 1.0}
  assert search_arms.read_own({}, "kl") == {}
