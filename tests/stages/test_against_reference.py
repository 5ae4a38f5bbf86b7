"""What is said of arms and a reference: figures, words, tables, and merged files."""

import numpy as np
import pytest
import scipy.stats

from benchmarks.headline_reference import HEAD, draw_incumbent
from benchmarks.merge_comparisons import merge, merge_by_budget
from mllm_selector_jax.comparison import against_reference, comparison_summary
from mllm_selector_jax.comparison.comparison_plan import INCUMBENT, RANDOM, Arm
from mllm_selector_jax.demo.pool_mixture import PoolOptions, plan_pool
from mllm_selector_jax.evaluation import intervals
from mllm_selector_jax.pages import comparison_page, comparison_plot
from mllm_selector_jax.pages.reference_answers import READING, describe_answers

TASKS = ("count", "text", "value")
BUDGETS = ("5%ref", "50%ref")
ARMS = (INCUMBENT, *(Arm(name, text) for text in BUDGETS for name in (RANDOM, "kl")))
# By how much each arm is above the reference on each task, seeds apart.
GAINS = {"5%ref": (-0.3, -0.2, 0.02), "50%ref": (0.2, 0.1, 0.25)}


def find_arm(entry):
  return entry["strategy"], entry["budget"]


def draw_lines(seeds, spread=0.02):
  """Lines of results.json in which `kl` at 50%ref is above the reference on all."""
  rng = np.random.default_rng(2)
  lines = []
  for seed in seeds:
    for arm in ARMS:
      gains = GAINS.get(arm.budget, (0, 0, 0)) if arm.strategy == "kl" else (0, 0, 0)
      scores = {
        task: 0.5 + gain + rng.normal(0, spread)
        for task, gain in zip(TASKS, gains, strict=True)
      }
      macro = float(np.mean(list(scores.values())))
      line = {**arm._asdict(), "arm": arm.name(seed), "seed": seed, "tasks": scores}
      rows = {"100%ref": 40, "5%ref": 2, "50%ref": 20}[arm.budget]
      lines.append({**line, "rows": rows, "macro": macro, "overall": macro})
  return lines


def test_answers_are_those_of_intervals_and_of_holm():
  lines = draw_lines(range(5))
  table = comparison_summary.tabulate(lines, TASKS, "kl")
  answers = against_reference.answer(table)
  scores = {
    (arm, task): [x["tasks"][task] for x in lines if find_arm(x) == arm]
    for arm in ARMS
    for task in TASKS
  }
  tests = {
    key: scipy.stats.ttest_rel(values, scores[INCUMBENT, key[1]])
    for key, values in scores.items()
    if key[0] != INCUMBENT
  }
  adjusted = intervals.holm([test.pvalue for test in tests.values()])
  holm = dict(zip(tests, adjusted, strict=True))
  assert [(x["strategy"], x["budget"]) for x in answers] == [tuple(a) for a in ARMS[1:]]
  seen = set()
  for arm, answer in zip(ARMS[1:], answers, strict=True):
    for side, sign in (("above", 1), ("below", -1)):
      for task in TASKS:
        test = tests[arm, task]
        low, high = test.confidence_interval(0.95)
        excludes = low > 0 if sign > 0 else high < 0
        assert (task in answer[side]["tasks"]) == excludes
        assert (task in answer[side]["holm"]) == (excludes and holm[arm, task] < 0.05)
        assert (task in answer[side]["leaning"]) == (sign * test.statistic > 0)
        seen.add((side, excludes, excludes and holm[arm, task] < 0.05))
    assert answer["tasks"] == 3 and answer["seeds"] == 5
  assert {("above", True, True), ("below", True, True), ("above", False, False)} <= seen
  assert answers[-1]["above"]["tasks"] == list(TASKS)


def describe(seeds, spread=0.02):
  table = comparison_summary.tabulate(draw_lines(seeds, spread), TASKS, "kl")
  return describe_answers(against_reference.answer(table))


def test_words_say_on_all_on_some_and_on_none():
  *_, few, _, many = describe(range(5))
  assert many.startswith("kl at 50%ref (20 rows) is above the reference on all 3 tasks")
  assert "below it on none. Mean of the tasks: +0." in many
  assert "below it on 2 of 3 tasks (count, text), by Holm too" in few
  assert few.startswith("kl at 5%ref (2 rows) is above the reference on ")


def test_one_seed_decides_nothing():
  *_, text = describe([7])
  assert "one seed has no interval, so that nothing is decided" in text
  assert "higher than the reference on all 3 tasks, lower on none" in text


def test_tables_page_and_picture_have_the_reference():
  results, missing = merge([{"arms": draw_lines([1, 2, 3])}], None, None)
  assert not missing and results["plan"]["budgets"] == ["5%ref", "50%ref"]
  assert results["plan"]["first"] == "kl"
  titles = {t.title: t for t in comparison_page.list_tables(results, {"table": []})}
  main = titles["Mean of the tasks"]
  column = main.head.index("minus reference")
  assert main.lines[0][:2] == ["reference", "100%ref"] and main.lines[0][column] == "-"
  (kept,) = (line for line in main.lines if line[:2] == ["kl", "50%ref"])
  wanted = next(
    entry["minus_reference"]
    for entry in results["table"]
    if entry["part"] == "macro" and find_arm(entry) == ("kl", "50%ref")
  )
  assert kept[column].startswith(f"{wanted['value']:+.3f} ± ")
  assert titles["By task, minus reference"].head[2:] == list(TASKS)
  text = comparison_page.format_markdown(results, {"table": []})
  assert text.startswith("**Against the reference**") and READING in text
  plan = {"variants": {}, "match": "epochs", "fresh_pools": True}
  results |= {"plan": results["plan"] | plan, "tasks_left_out": []}
  page = comparison_page.render(results, {"table": []}, b"", "title")
  assert page.count("Against the reference") == 1 and "on all 3 tasks" in page
  picture = comparison_plot.draw(results)
  without = [x for x in results["table"] if x["strategy"] != "reference"]
  assert picture != comparison_plot.draw(results | {"table": without})


def test_a_comparison_without_a_reference_says_nothing_of_one():
  lines = [x for x in draw_lines([1, 2]) if x["strategy"] != "reference"]
  results, _ = merge([{"arms": lines}], None, None)
  assert results["against_reference"] == []
  text = comparison_page.format_markdown(results, {"table": []})
  assert "reference" not in text.lower()


def name(entry):
  return *find_arm(entry), entry["part"], entry["task"]


@pytest.mark.parametrize("join", [merge, merge_by_budget])
def test_files_of_several_seeds_merge_to_the_whole(join):
  parts = [{"arms": draw_lines(range(4))[5 * n : 5 * n + 5]} for n in range(4)]
  merged, missing = join(parts, None, None)
  assert not missing and merged["plan"]["seeds"] == [0, 1, 2, 3]
  assert sum(x["strategy"] == "reference" for x in merged["arms"]) == 4
  whole = comparison_summary.tabulate(draw_lines(range(4)), TASKS, "kl")
  merged, whole = ({name(x): x for x in table} for table in (merged["table"], whole))
  assert merged == whole
  one, _ = join(parts, ["kl"], ["50%ref"])
  held = {find_arm(x) for x in one["table"]}
  assert held == {INCUMBENT, ("kl", "50%ref")}
  assert len(one["against_reference"]) == 1


def test_the_frozen_incumbent_is_half_of_a_pool_and_head_heavy():
  pool = plan_pool(PoolOptions(rows=600, seed=5))
  drawn = draw_incumbent(pool, 5)
  numbers = [row.row for row in drawn]
  assert numbers == sorted(set(numbers)) and len(numbers) == 300
  assert sum(row.task in HEAD for row in drawn) == 285
  assert not any(row.broken for row in drawn)
  again = draw_incumbent(pool, 5)
  assert again == drawn != draw_incumbent(pool, 6)
