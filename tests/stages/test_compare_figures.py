"""Figures of a comparison: paired tests, Holm, differences, overlaps, the picture."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.merge_comparisons import merge, merge_by_budget
from mllm_selector_jax.comparison import comparison_summary
from mllm_selector_jax.comparison.comparison_plan import FULL, RANDOM, WHOLE, Arm
from mllm_selector_jax.evaluation import intervals
from mllm_selector_jax.pages import comparison_page, comparison_plot

VALUES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12)


@given(VALUES)
def test_paired_test_equals_scipys(pairs):
  first, second = np.array(pairs).T
  found = intervals.paired_test(first.tolist(), second.tolist())
  spread = np.ptp(first - second)
  if spread < 1e-12:
    assert found.p is found.low is found.high is None
    return
  if spread < 1e-6:  # where scipy's own differences lose their digits
    return
  wanted = scipy.stats.ttest_rel(first, second)
  bounds = wanted.confidence_interval(0.95)
  assert found.p == pytest.approx(wanted.pvalue, rel=1e-7, abs=1e-13)
  np.testing.assert_allclose((found.low, found.high), bounds, atol=1e-9)
  turned = intervals.paired_test(second.tolist(), first.tolist())
  assert turned.p == found.p and turned.value == -found.value


def test_paired_test_of_one_pair_or_equal_differences_tells_no_p():
  assert intervals.paired_test([0.5], [0.25]) == (0.25, None, None, None, 1)
  found = intervals.paired_test([0.3, 0.4, 0.5], [0.2, 0.3, 0.4])
  assert found.p is None and found.value == pytest.approx(0.1) and found.count == 3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_its_definition(ps):
  found = intervals.holm([*ps, None])
  assert found[-1] is None
  ordered = np.sort(ps)
  factors = np.arange(len(ps), 0, -1)
  steps = np.maximum.accumulate(np.minimum(1, ordered * factors))
  np.testing.assert_allclose(np.sort(found[:-1]), steps)
  assert all(a >= p for a, p in zip(found, ps, strict=False))


def test_table_differences_quotients_and_families():
  rng = np.random.default_rng(0)
  arms = [Arm(FULL, WHOLE), Arm(RANDOM, "5%"), Arm("kl", "5%"), Arm("top", "5%")]
  lines = []
  for seed in range(5):
    for arm in arms:
      tasks = dict(zip("abc", rng.uniform(0.2, 0.9, 3), strict=True))
      macro = float(np.mean(list(tasks.values())))
      line = {**arm._asdict(), "seed": seed, "rows": 10, "tasks": tasks}
      lines.append({**line, "macro": macro, "overall": macro})
  values = {
    arm: np.array([x["macro"] for x in lines if x["strategy"] == arm.strategy])
    for arm in arms
  }
  table = comparison_summary.tabulate(lines, ["a", "b", "c"], "kl")
  macro = {x["strategy"]: x for x in table if x["part"] == "macro"}
  full, control, kl, top = (values[arm] for arm in arms)
  wanted = [scipy.stats.ttest_rel(own, control).pvalue for own in (kl, top)]
  for name, p, holm in zip(("kl", "top"), wanted, intervals.holm(wanted), strict=True):
    assert macro[name]["minus_random"]["p"] == pytest.approx(p)
    assert macro[name]["minus_random"]["holm"] == pytest.approx(holm)
  assert macro["kl"]["of_full"]["value"] == pytest.approx(np.mean(kl / full))
  assert macro["full"]["of_full"]["value"] == 1
  assert macro["full"]["minus_random"] is None is macro["random"]["minus_random"]
  p = scipy.stats.ttest_rel(top, kl).pvalue
  assert macro["top"]["minus_first"]["p"] == pytest.approx(p)
  assert macro["top"]["minus_first"]["value"] == pytest.approx(np.mean(top - kl))
  held = {name for name, entry in macro.items() if entry["minus_first"]}
  assert held == {"random", "top"}
  assert (
    macro["random"]["minus_first"]["value"] == -macro["kl"]["minus_random"]["value"]
  )
  tasks = [x for x in table if x["part"] == "task" and x["minus_full"]]
  assert len(tasks) == 3 * 3  # of every arm but the full pool
  found = [x["minus_full"]["holm"] for x in tasks]
  assert found == intervals.holm([x["minus_full"]["p"] for x in tasks])


def draw_results(tasks, seeds=5):
  """Results in which some differences are told from 0, and others are not."""
  rng = np.random.default_rng(7)
  budgets = ("5%", "20%")
  names = (RANDOM, "kl", "top", "grouped")
  arms = [Arm(FULL, WHOLE), *(Arm(name, text) for text in budgets for name in names)]
  lines = []
  for seed in range(seeds):
    for place, arm in enumerate(arms):
      scores = {
        task: 0.5 + 0.01 * (place % 4) * number + rng.normal(0, 0.02)
        for number, task in enumerate(tasks, 1)
      }
      macro = float(np.mean(list(scores.values())))
      line = {**arm._asdict(), "seed": seed, "rows": 10, "tasks": scores}
      lines.append({**line, "macro": macro, "overall": macro})
  plan = {"seeds": list(range(seeds)), "strategies": [FULL, *names], "first": "kl"}
  plan |= {"budgets": list(budgets), "variants": {}, "match": "epochs"}
  table = comparison_summary.tabulate(lines, tasks, "kl")
  results = {"plan": plan | {"fresh_pools": True}, "table": table, "overlap": []}
  return results | {"tasks_left_out": []}


def adjust(ps):
  """Holm's method as he has it: step down until the first that is not rejected."""
  order = np.argsort(ps)
  limits = 0.05 / np.arange(len(ps), 0, -1)
  passed = np.logical_and.accumulate(np.array(ps)[order] < limits)
  return {int(place) for place in order[passed]}


def test_a_star_stands_where_the_stated_rule_holds_and_nowhere_else():
  results = draw_results(["a", "b", "c"])
  tables = {
    table.title: table for table in comparison_page.list_tables(results, {"table": []})
  }
  places = {
    "minus_random": ("Mean of the tasks", "By task, minus random"),
    "minus_full": ("Mean of the tasks", "By task, minus full"),
    "minus_first": ("Mean of the tasks, minus kl", "By task, minus kl"),
  }
  seen = set()
  for name, titles in places.items():
    for title, part in zip(titles, ("macro", "task"), strict=True):
      table = tables[title]
      entries = [x for x in results["table"] if x["part"] == part and x[name]]
      sure = adjust([entry[name]["p"] for entry in entries])
      column = name.replace("_", " ").replace("first", "kl")
      cells = {
        tuple(line[:2]): dict(zip(table.head, line, strict=True))
        for line in table.lines
      }
      for place, entry in enumerate(entries):
        line = cells[entry["strategy"], entry["budget"]]
        cell = line[column if part == "macro" else entry["task"]]
        assert ("*" in cell) == (place in sure), (title, entry)
        excludes = entry[name]["low"] > 0 or entry[name]["high"] < 0
        seen.add((part, "*" in cell, excludes))
      assert table.note == comparison_page.RULE
  # Intervals that exclude 0 with and without a star, in both kinds of table.
  for part in ("macro", "task"):
    assert {(part, True, True), (part, False, True), (part, False, False)} <= seen
  assert not {one for one in seen if one[1:] == (True, False)}


def test_of_one_task_both_tables_say_the_same():
  results = draw_results(["a"])
  main, _, *others = comparison_page.list_tables(results, {"table": []})
  by_task = next(table for table in others if table.title == "By task, minus random")
  column = main.head.index("minus random")
  wanted = {tuple(line[:2]): line[column] for line in main.lines}
  found = {tuple(line[:2]): line[2] for line in by_task.lines}
  assert found and found == {arm: wanted[arm] for arm in found}
  assert len({"*" in cell for cell in found.values()}) == 2


def test_the_rule_is_told_under_the_tables_of_page_and_markdown():
  results = draw_results(["a", "b"])
  text = comparison_page.format_markdown(results, {"table": []})
  assert text.count(comparison_page.RULE.replace("*", "\\*")) == 5
  html = comparison_page.render(results, {"table": []}, b"", "title")
  assert html.count(comparison_page.RULE.split(".")[0]) == 5


def test_a_full_pool_at_zero_gives_no_quotient():
  lines = [
    {**arm._asdict(), "rows": 1, "macro": value, "overall": value, "tasks": {}}
    for arm, value in ((Arm(FULL, WHOLE), 0.0), (Arm(RANDOM, "5%"), 0.5))
  ]
  assert {
    entry["of_full"] is None for entry in comparison_summary.tabulate(lines, [])
  } == {True}


def test_without_the_full_pool_there_is_no_difference_from_it():
  arms = [Arm(name, text) for text in ("5%", "20%") for name in (RANDOM, "kl")]
  lines = [
    {**arm._asdict(), "rows": 9, "macro": value, "overall": value, "tasks": {"a": 0.5}}
    for arm in arms
    for value in (0.25, 0.5)
  ]
  table = comparison_summary.tabulate(lines, ["a"], "kl")
  assert {(e["of_full"], e["minus_full"]) for e in table} == {(None, None)}
  plan = {"seeds": [0, 1], "strategies": [RANDOM, "kl"], "budgets": ["5%", "20%"]}
  plan["first"] = comparison_summary.find_first(plan["strategies"])
  results = {"plan": plan, "table": table, "overlap": []}
  first, *others = comparison_page.list_tables(results, {"table": []})
  assert first.head == ["strategy", "budget", "rows", "accuracy", "minus random"]
  assert [table.title for table in others] == [
    "Mean of the tasks, minus kl",
    "By task",
    "By task, minus random",
    "By task, minus kl",
  ]
  with Image.open(io.BytesIO(comparison_plot.draw(results))) as image:
    assert image.size == (1650, 690)


def test_the_readme_has_the_figures_of_the_stored_comparisons():
  top = Path(__file__).parents[2]
  files = sorted((top / "docs/headline").glob("12-*.json"))
  found = [json.loads(path.read_text()) for path in files]
  results, _ = merge_by_budget(found, ["kl", "random"], None)
  lines = [x for x in results["table"] if x["part"] == "macro"]
  held = [x for x in lines if x["strategy"] == "kl"]
  assert [x["budget"] for x in held] == ["1%", "5%", "10%", "20%", "50%"]
  assert [x["seeds"] for x in held] == [10, 10, 10, 10, 5]
  assert all(x["minus_random"]["low"] > 0 for x in held)
  random = [x for x in lines if x["strategy"] == "random"]
  readme = (top / "README.md").read_text()
  for drawn, kept in zip(random, held, strict=True):
    means = [f"{100 * x['mean']['value']:.1f}" for x in (drawn, kept)]
    gain = kept["minus_random"]
    half = 100 * (gain["high"] - gain["low"]) / 2
    row = [kept["budget"].replace("%", " %"), *means, f"+{100 * gain['value']:.1f} ± "]
    assert f"| {' | '.join(row)}{half:.1f} |" in readme
  # Each budget is what it would be alone; only Holm's method looks at the others.
  alone, _ = merge(found, ["kl", "random"], ["5%"], full=False)
  (wanted,) = (
    x for x in alone["table"] if x["strategy"] == "kl" and x["part"] == "macro"
  )
  assert held[1]["minus_random"]["p"] == wanted["minus_random"]["p"]
  ps = [x["minus_random"]["p"] for x in held]
  assert [x["minus_random"]["holm"] for x in held] == intervals.holm(ps)
  with Image.open(io.BytesIO(comparison_plot.draw(results))) as image:
    assert image.size == (1650, 690)


SETS = st.lists(st.integers(0, 30), unique=True)


@given(SETS, SETS)
def test_jaccard_equals_sets(first, second):
  found = comparison_summary.jaccard(np.array(first, int), np.array(second, int))
  either = set(first) | set(second)
  assert found == (len(set(first) & set(second)) / len(either) if either else 1)


@pytest.mark.parametrize("budgets", [["5%"], ["5%", "20%"]])
def test_picture_has_a_row_a_strategy_where_there_is_one_budget(budgets):
  names = [RANDOM, *(f"variant {place}" for place in range(14))]
  arms = [Arm(FULL, WHOLE), *(Arm(name, text) for text in budgets for name in names)]
  rng = np.random.default_rng(1)
  lines = [
    {**arm._asdict(), "seed": seed, "rows": 10 * (1 + place), "tasks": {}}
    | dict.fromkeys(("macro", "overall"), rng.uniform())
    for seed in range(3)
    for place, arm in enumerate(arms)
  ]

  def size(strategies):
    own = [line for line in lines if line["strategy"] in (FULL, *strategies)]
    plan = {"seeds": [0, 1, 2], "strategies": [FULL, *strategies], "budgets": budgets}
    results = {"plan": plan, "table": comparison_summary.tabulate(own, [])}
    drawn = comparison_plot.draw(results)
    assert drawn == comparison_plot.draw(results)
    with Image.open(io.BytesIO(drawn)) as image:
      return image.size

  few, many = size(names[:3]), size(names)
  assert few[0] == many[0] == 1650
  assert many[1] > 2 * few[1] if len(budgets) == 1 else many[1] == few[1]
