"""What opens the page of a comparison: verdict, warning, axis, links to selections."""

import io

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.comparison import comparison_summary
from mllm_selector_jax.comparison.comparison_plan import FULL, RANDOM, WHOLE, Arm
from mllm_selector_jax.pages import comparison_page, comparison_plot, task_plot
from mllm_selector_jax.pages.comparison_verdict import describe_verdicts, warn_of_seeds

ARMS = (Arm(FULL, WHOLE), Arm(RANDOM, "5%"), Arm("kl", "5%"), Arm("<top>", "5%"))
ROWS = {FULL: 200, RANDOM: 10, "kl": 10, "<top>": 10}
NOISE = {"kl": 1, "<top>": 2}  # in other shares than random, so that differences vary


def make_results(seeds, gains, spread=0.001):
  """Results of arms that gain over random by about these shares."""
  lines = []
  for seed in range(seeds):
    for arm in ARMS:
      noise = spread * (seed - (seeds - 1) / 2) * NOISE.get(arm.strategy, -1)
      value = 0.5 + gains.get(arm.strategy, 0) + noise
      line = {**arm._asdict(), "arm": arm.name(seed), "seed": seed}
      line |= {"rows": ROWS[arm.strategy], "tasks": {"a": value, "b": 0.5}}
      lines.append({**line, "macro": value, "overall": value})
  strategies = [FULL, RANDOM, "kl", "<top>"]
  plan = {"seeds": list(range(seeds)), "strategies": strategies, "budgets": ["5%"]}
  plan |= {"first": "kl", "variants": {}, "match": "epochs", "fresh_pools": False}
  table = comparison_summary.tabulate(lines, ["a", "b"], "kl")
  results = {"plan": plan, "table": table, "overlap": [], "tasks_left_out": []}
  return results | {"arms": lines}


def test_the_verdict_is_that_of_the_adjusted_test():
  results = make_results(5, {"kl": 0.1, "<top>": -0.2, FULL: 0.3})
  better, worse = describe_verdicts(results)
  assert better.startswith(
    "Over 5 seeds, kl is better than random rows at 5% (+10.0 ± "
  )
  assert better.endswith("; at 5% it reaches 75.0 % of the full pool's accuracy.")
  assert worse.startswith("Over 5 seeds, <top> is worse than random rows at 5% (-20.0")
  unclear = describe_verdicts(make_results(3, {"kl": 0.01}, spread=0.1))[0]
  assert "kl is not told apart from random rows at 5% (+1.0 ± " in unclear
  single = describe_verdicts(make_results(1, {"kl": 0.04}))[0]
  assert single.startswith("One seed decides nothing; kl minus random rows is +4.0")


@pytest.mark.parametrize(
  ("seeds", "words"), [(1, "One seed shows no"), (2, "Two seeds hardly"), (3, "")]
)
def test_fewer_than_three_seeds_are_warned_of(seeds, words):
  results = make_results(seeds, {"kl": 0.1})
  warning = warn_of_seeds(results)
  assert warning.startswith(words) and bool(warning) == (seeds < 3)
  page = comparison_page.render(results, {"table": []}, b"", "title")
  assert ("<strong>Warning.</strong>" in page) == (seeds < 3)
  text = page.split("<main>")[1]
  verdict = text.index(
    "kl minus random" if seeds == 1 else f"Over {seeds} seeds, kl is"
  )
  assert verdict < text.index("<p>full, random, kl")


def test_twelve_is_the_quantile_that_the_warning_names():
  stats = pytest.importorskip("scipy.stats")
  assert f"{stats.t.ppf(0.975, 1):.1f}" in warn_of_seeds(make_results(2, {}))
  assert f"{stats.t.ppf(0.975, 2):.1f}" in warn_of_seeds(make_results(2, {}))


def test_links_lead_to_the_selections_and_names_are_escaped():
  results = make_results(2, {})
  found = comparison_page.list_selections(results)
  assert found[2] == (
    "kl",
    "5%",
    [(seed, f"../arms/kl-5%25-{seed}/selection/selected.json") for seed in (0, 1)],
  )
  page = comparison_page.render(results, {"table": []}, b"", "title")
  assert 'href="../arms/kl-5%25-1/selection/selected.json"' in page
  assert "<top>" not in page and "&lt;top&gt;" in page
  del results["arms"]  # figures that were merged from several comparisons
  assert "Selections" not in comparison_page.render(results, {"table": []}, b"", "t")


def test_two_seeds_do_not_blow_up_an_axis():
  wide = [
    {"value": 0.5, "low": -3.0, "high": 4.0},
    {"value": 0.6, "low": 0.5, "high": 0.7},
  ]
  low, high = comparison_plot.find_limits(wide)
  assert 0.3 < low < 0.35 and 0.75 < high < 0.8
  narrow = [
    {"value": 0.5, "low": 0.49, "high": 0.52},
    {"value": 0.9, "low": None, "high": None},
  ]
  low, high = comparison_plot.find_limits(narrow)
  assert 0.4 < low < 0.49 and 0.9 < high < 1
  low, high = comparison_plot.find_limits([{"value": 0.5, "low": None, "high": None}])
  assert low < 0.5 < high < 0.51
  results = make_results(2, {"kl": 0.1}, spread=0.2)
  assert comparison_plot.draw(results) == comparison_plot.draw(results)


def test_tasks_have_a_panel_each():
  results = make_results(3, {"kl": 0.1})
  picture = task_plot.draw_tasks(results)
  assert picture == task_plot.draw_tasks(results)
  pixels = np.array(Image.open(io.BytesIO(picture)).convert("L"))
  assert pixels.shape[1] == 1650 and (pixels[:, 900:] < 128).any()
  without = [entry | {"minus_random": None} for entry in results["table"]]
  assert task_plot.draw_tasks(results | {"table": without}) == b""
