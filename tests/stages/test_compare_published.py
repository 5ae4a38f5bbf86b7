"""A comparison with selections that others published, from end to end."""

import json

import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.comparison import comparison_plan
from mllm_selector_jax.comparison.comparison_plan import Arm
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run

SMALL = {
  "pool.demo.rows": 90,
  "seed.rows": "10",
  "tune.batch": 8,
  "compare.strategies": "kl",
  "compare.budgets": "12",
  "compare.seeds": "3",
  "compare.full": False,
}


def read_kept(work, arm):
  table = pq.read_table(work / f"arms/{arm}/selection/selection.parquet").to_pydict()
  kept = [row for row, one in zip(table["row"], table["kept"], strict=True) if one]
  return sorted(kept, key=lambda row: table["rank"][row])


@pytest.mark.slow
def test_lists_are_compared_at_their_own_size_and_scores_at_every_budget(
  base, tmp_path
):
  work = tmp_path / "work"
  with small_run.open_run(work, base, **SMALL) as current:
    COMMANDS["check"](current)
  pool = read_table(work / "pool.parquet")
  records = json.loads((work / "demo_pool/pool.json").read_text())
  usable = [row for row in range(90) if pool.ok[row]]
  icons, scored = usable[5:23], usable[30:60]
  others = [{**records[0], "id": f"gone-{n}"} for n in range(2)]
  listed = [*(records[row] for row in icons), *others]
  (tmp_path / "icons.json").write_text(json.dumps(listed))
  lines = [f"{pool.id[row]},{(row * 37) % 11}" for row in scored]
  (tmp_path / "less.csv").write_text("\n".join(["id,influence", *lines]))
  settings = {
    **SMALL,
    "compare.published": (
      f"icons={tmp_path}/icons.json, less={tmp_path}/less.csv@influence"
    ),
    "select.most": "image=1",
    "select.force_in": f"row={usable[0]}",
  }
  with small_run.open_run(work, base, **settings) as current:
    with pytest.raises(InputError, match=r"2 match no row \(10.00%\)") as refused:
      COMMANDS["compare"](current)
  assert "--config.select.most_missing" in str(refused.value)
  assert not (work / "seeds/3/seed").exists()
  settings["select.most_missing"] = 0.1
  with small_run.open_run(work, base, **settings) as current:
    COMMANDS["compare"](current)
  assert sorted(read_kept(work, "icons-100%icons-3")) == icons
  assert len(read_kept(work, "random-100%icons-3")) == len(icons)
  # The other arms have what the section `select` asks for.
  kept = read_kept(work, "less-12-3")
  assert kept[0] == usable[0] and {*kept[1:]} <= {*scored}
  values = [(row * 37) % 11 for row in kept[1:]]
  assert values == sorted(values, reverse=True)
  results = json.loads((work / "compare/results.json").read_text())
  assert results["plan"]["published"].keys() == {"icons", "less"}
  assert results["plan"]["first"] == "kl"
  by_arm = {(x["strategy"], x["budget"]): x for x in results["table"] if not x["task"]}
  assert by_arm["icons", "100%icons"]["minus_random"]
  costs = json.loads((work / "compare/costs.json").read_text())["table"]
  spent = {x["strategy"]: x["selection_flops"] for x in costs}
  assert spent["icons"] == spent["less"] == 0 < spent["kl"]
  text = (work / "log.txt").read_text()
  assert "entries name 18 rows of the pool; 2 match no row" in text
  assert "icons" in (work / "compare/compare.html").read_text()


def plan(base, **settings):
  settings = {f"compare.{name}": value for name, value in settings.items()}
  return comparison_plan.read_plan(small_run.make_config(base, **SMALL | settings))


def test_arms_of_published_lists_and_budgets_of_their_size(base):
  read = plan(
    base,
    published={"icons": "a/icons.json", "vis.nec": "b.jsonl"},
    budgets="12,50%icons,100%icons",
  )
  names = [(arm.strategy, arm.budget) for arm in read.arms]
  assert names == [
    *(("random", "12"), ("kl", "12")),
    *(("random", "50%icons"), ("kl", "50%icons")),
    *(("random", "100%icons"), ("kl", "100%icons")),
    *(("icons", "100%icons"), ("vis.nec", "100%vis.nec"), ("random", "100%vis.nec")),
  ]
  given = comparison_plan.GIVEN | {"reference": "a/icons.json"}
  own, other = Arm("icons", "100%icons"), Arm("kl", "50%icons")
  assert read.strategy(own) == "reference" and read.changes(own) == given
  assert (read.budget(own), read.budget(other)) == ("100%ref", "50%ref")
  assert read.changes(other) == {"reference": "a/icons.json"}
  assert read.strategy(other) == "kl" and own.name(3) == "icons-100%icons-3"


@pytest.mark.parametrize(
  ("settings", "words"),
  [
    ({"published": "kl=a.json"}, "'kl', which is a strategy or a variant"),
    ({"published": "a=a.json", "variants": "a: bound=none"}, "is a strategy or a var"),
    ({"published": "full=a.json"}, "'full', which is a strategy"),
    ({"published": "a=a.json", "budgets": "5%b"}, "has '5%b', and .* no 'b'; it has a"),
    ({"budgets": "100%icons"}, "compare.published has no 'icons'; it has none"),
    ({"published": "a=a.json", "budgets": "5%a,5.0%a"}, "which are the same"),
    (
      {"published": "a=a.json, b=b.csv@s", "budgets": "5%a"},
      "relative to one list, and 'b' .* give that budget in rows",
    ),
    (
      {"published": "a=a.json", "fresh_pools": True, "seeds": "1,2"},
      "compare.published names rows of one pool",
    ),
  ],
)
def test_plans_that_cannot_be(base, settings, words):
  with pytest.raises(InputError, match=words):
    plan(base, **settings)
