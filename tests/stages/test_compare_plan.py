"""What a comparison is asked for: plans, and wrong ones."""

import pytest

from mllm_selector_jax.comparison.comparison_plan import read_plan
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run

SMALL = {
  "pool.demo.rows": 60,
  "seed.rows": "10",
  "compare.strategies": ("kl", "random"),
  "compare.budgets": "25%",
  "compare.seeds": "3,4",
  "compare.fresh_pools": True,
}


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("strategies", "kl,kl", "two arms would write to arms/kl-25%-3"),
    ("strategies", "klx", r"has 'klx' \(did you mean kl\?\); allowed: kl"),
    ("strategies", "", "compare.strategies is empty"),
    ("strategies", None, "compare.strategies is empty"),
    ("strategies", "ifd", "needs the signal 'ifd'"),
    ("budgets", "25%,25%", "two arms would write to arms/kl-25%-3"),
    ("budgets", "25%,25.0%", "'25%' and '25.0%', which are the same"),
    ("budgets", (), "compare.budgets is empty"),
    ("budgets", "many", "compare.budgets is 'many'"),
    ("budgets", "5%,50%ref", "compare.budgets is 50%ref, a share of the rows of the"),
    ("strategies", "kl,reference", "has 'reference', the mixture that is trained on"),
    ("variants", "a: reference=b.txt", "the setting 'reference'"),
    ("seeds", "3,3", "compare.seeds has 3 twice"),
    ("seeds", "3,x", "compare.seeds has 'x'"),
    ("seeds", " , ", "compare.seeds is empty"),
    ("match", "rows", "compare.match='rows'"),
    ("variants", "a: bound=none; a: bound=0.1", "has 'a' twice"),
    ("variants", "a: floor=]", "with floor=], which is no value"),
    ("variants", "a: bond=none", r"'bond' \(did you mean bound\?\); there are"),
    ("variants", "a: bound=nine", "select.bound is 'nine'"),
    ("variants", "a: visual=true", "select.visual needs the signal 'visual'"),
    ("variants", "a: budget=5%", "the setting 'budget'"),
    ("variants", "a: bound", "write a name and settings"),
    ("variants", "kl: bound=none", "has 'kl', which is a strategy"),
    ("variants", "a-b: bound=none", "cannot be a folder's name"),
    ("variants", "a: strategy=klx", r"variants: a has 'klx' \(did you mean kl"),
    ("variants", "a: strategy=ifd", "strategy ifd needs the signal 'ifd'"),
    ("variants", {"a": {"signal": "el3n"}}, "select.signal is 'el3n', which is no"),
    ("variants", "a: groups=colour", "select.groups names 'colour'"),
  ],
)
def test_a_wrong_plan_is_refused_before_anything_is_made(
  base, tmp_path, key, value, message
):
  settings = {**SMALL, f"compare.{key}": value}
  with small_run.open_run(tmp_path, base, **settings) as current:
    with pytest.raises(InputError, match=message):
      COMMANDS["compare"](current)
  assert not (tmp_path / "seeds").exists()


def test_fresh_pools_need_a_drawn_pool(base):
  cfg = small_run.make_config(base, **{**SMALL, "pool.demo.rows": 0})
  with pytest.raises(InputError, match="fresh_pools draws the demo pool"):
    read_plan(cfg)


def test_the_full_pool_may_be_left_out(base):
  settings = {"compare.full": False, "compare.budgets": "1%", "compare.seeds": 5}
  plan = read_plan(small_run.make_config(base, **settings))
  assert [arm.name(5) for arm in plan.arms] == ["random-1%-5", "kl-1%-5"]
  settings["compare.strategies"] = "full,kl"
  with pytest.raises(InputError, match="has 'full', and"):
    read_plan(small_run.make_config(base, **settings))


def test_controls_are_always_in_the_plan(base):
  settings = {"compare.strategies": "full,kl", "compare.budgets": ("1%", "500 rows")}
  plan = read_plan(small_run.make_config(base, **settings | {"compare.seeds": 5}))
  assert [arm.name(5) for arm in plan.arms] == [
    "full-100%-5",
    *("random-1%-5", "kl-1%-5", "random-500rows-5", "kl-500rows-5"),
  ]
  assert plan.seeds == (5,)


def test_the_reference_is_an_arm_of_every_seed_and_of_one_pool(base):
  settings = {"select.reference": "row=3", "compare.budgets": ("50%ref", "100%ref")}
  settings |= {"compare.strategies": "reference,kl", "compare.seeds": "5,6"}
  plan = read_plan(small_run.make_config(base, **settings))
  assert [arm.name(6) for arm in plan.arms] == [
    *("full-100%-6", "reference-100%ref-6"),
    *("random-50%ref-6", "kl-50%ref-6", "random-100%ref-6", "kl-100%ref-6"),
  ]
  assert plan.longest().strategy == "full"
  settings["compare.full"] = False
  plan = read_plan(small_run.make_config(base, **settings))
  assert plan.longest() == plan.arms[0] == ("reference", "100%ref")
  settings["compare.fresh_pools"] = True
  with pytest.raises(InputError, match="draws 2 pools, one for each of"):
    read_plan(small_run.make_config(base, **settings))
  settings["compare.seeds"] = "5"
  assert read_plan(small_run.make_config(base, **settings)).fresh_pools
