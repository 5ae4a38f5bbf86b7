"""A small comparison from end to end, and the figures it is made of."""

import dataclasses
import json
import math
import shutil
import types

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mllm_selector_jax import stages
from mllm_selector_jax.evaluation import intervals
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import LoraConfig
from mllm_selector_jax.stages.compare import costs, summary
from mllm_selector_jax.stages.compare.arms import FULL, RANDOM, WHOLE, Arm, read_plan
from mllm_selector_jax.training import step, work
from mllm_selector_jax.types import InputError
from tests import small_run
from tests.training import toy

SMALL = {
  "pool.demo.rows": 60,
  "seed.rows": "10",
  "compare.strategies": ("kl", "random"),
  "compare.budgets": "25%",
  "compare.seeds": "3,4",
  "compare.fresh_pools": True,
}
ARMS = [
  f"{arm}-{seed}" for seed in (3, 4) for arm in ("full-100%", "random-25%", "kl-25%")
]
COMPARED = (
  "accuracy.png",
  "compare.html",
  "costs.json",
  "provenance.json",
  "results.json",
  "table.md",
  "table.parquet",
)


@pytest.fixture(scope="module")
def base():
  return "demo"  # a random base knows no answer, and nothing would differ


@pytest.fixture(scope="module")
def workdir(base, tmp_path_factory):
  folder = tmp_path_factory.mktemp("compared") / "work"
  with small_run.open_run(folder, base, **SMALL) as current:
    stages.compare(current)
    assert current.cfg.rng_seed == 0 and current.workdir.scored is None
  return folder


def read(path):
  return json.loads(path.read_text())


def test_every_arm_and_seed_is_there(workdir):
  assert sorted(path.name for path in (workdir / "arms").iterdir()) == sorted(ARMS)
  for seed in (3, 4):
    own = workdir / "seeds" / str(seed)
    for name in ("demo_pool", "seed", "scores", "pool.parquet"):
      assert (own / name).exists()
    assert read(own / "scores/provenance.json")["seed"] == seed
  pools = [workdir / f"seeds/{seed}/demo_pool/pool.json" for seed in (3, 4)]
  assert pools[0].read_bytes() != pools[1].read_bytes()
  recipes = {
    json.dumps(read(workdir / "arms" / arm / "tuned/provenance.json")["config"])
    for arm in ARMS
  }
  assert len(recipes) == 1 and not (workdir / "seed").exists()
  assert sorted(p.name for p in (workdir / "compare").iterdir()) == sorted(COMPARED)


def test_the_table_is_that_of_the_arms(workdir):
  results = read(workdir / "compare/results.json")
  macro = {
    arm: read(workdir / f"arms/{arm}/evaluation/results.json")["macro"]["value"]
    for arm in ARMS
  }
  assert {line["arm"]: line["macro"] for line in results["arms"]} == macro
  table = pq.read_table(workdir / "compare/table.parquet").to_pylist()
  line = next(x for x in table if x["strategy"] == "kl" and x["part"] == "macro")
  assert line["mean"] == pytest.approx((macro["kl-25%-3"] + macro["kl-25%-4"]) / 2)
  assert line["minus_random"] == pytest.approx(
    np.mean([macro[f"kl-25%-{s}"] - macro[f"random-25%-{s}"] for s in (3, 4)])
  )
  shared = results["overlap"]
  assert [(x["budget"], x["first"], x["second"]) for x in shared] == [
    ("25%", "random", "kl")
  ]
  kept = [
    {x["id"] for x in read(workdir / f"arms/{arm}-3/selection/selected.json")}
    for arm in ("random-25%", "kl-25%")
  ]
  other = [
    {x["id"] for x in read(workdir / f"arms/{arm}-4/selection/selected.json")}
    for arm in ("random-25%", "kl-25%")
  ]
  expected = np.mean([len(a & b) / len(a | b) for a, b in (kept, other)])
  assert shared[0]["jaccard"]["value"] == pytest.approx(expected)


def test_page_and_picture_are_whole(workdir):
  page = (workdir / "compare/compare.html").read_text()
  assert page.count("<table>") == 1 + page.count("</table>") - 1 >= 5
  for word in ("minus random", "FLOPs", "Jaccard", "kl", "data:image/png"):
    assert word in page
  assert "http" not in page.replace("http-equiv", "") and "<script" not in page
  with Image.open(workdir / "compare/accuracy.png") as image:
    image.load()
    assert image.size[0] > 1000
  assert "minus random" in (workdir / "log.txt").read_text()


@pytest.mark.parametrize(
  ("trainable", "rank"), [("decoder", 0), ("all", 0), ("decoder", 8)]
)
def test_flops_of_rows_are_those_that_training_counts_of_its_batches(
  base, trainable, rank
):
  section = small_run.make_config(base).tune
  section.trainable, section.lora.rank = trainable, rank
  config, samples = toy.CONFIG, toy.random_samples(24)
  rates = costs.make_row_rates(config, section)
  rows = types.SimpleNamespace(
    tokens=np.array([len(one.tokens) for one, _ in samples.values()]),
    supervised=np.array([one.supervised.sum() for one, _ in samples.values()]),
    has_image=np.array([pixels is not None for _, pixels in samples.values()]),
  )
  params = mllm.abstract(config)
  if rank:
    config = dataclasses.replace(config, lora=LoraConfig(rank, 1.0))
    params = mllm.abstract(config)
  count = work.make_count(
    config, params, step.split_params(params, trainable)[0].keys()
  )
  counted = sum(count(batch).flops for batch, _ in toy.make_batches(epochs=2))
  found = costs.row_flops(rates, rows).sum() * 2
  assert found == pytest.approx(counted)
  if trainable == "all":
    forward = costs.row_flops(costs.make_row_rates(config, None), rows).sum() * 2
    assert forward == pytest.approx(counted / 3)


def test_costs_of_arms_and_their_means(workdir):
  found = read(workdir / "compare/costs.json")
  table = {line["strategy"]: line for line in found["table"]}
  assert table["random"]["selection_flops"] == 0 < table["kl"]["selection_flops"]
  assert table["full"]["of_full_flops"] == 1
  assert 0.2 < table["random"]["of_full_flops"] < 0.3
  assert all(line["tune_seconds"] > 0 for line in found["arms"])
  assert table["kl"]["selection_seconds"] > table["random"]["selection_seconds"] > 0


def test_a_rerun_keeps_every_byte_and_a_lost_arm_is_made_again(base, workdir):
  wanted = small_run.read_bytes(workdir)
  place = len((workdir / "log.txt").read_text())
  with small_run.open_run(workdir, base, **SMALL) as current:
    stages.compare(current)
  assert small_run.read_bytes(workdir) == wanted
  assert "making" not in (workdir / "log.txt").read_text()[place:]
  shutil.rmtree(workdir / "arms/kl-25%-4")
  shutil.rmtree(workdir / "compare")
  place = len((workdir / "log.txt").read_text())
  with small_run.open_run(workdir, base, **SMALL) as current:
    stages.compare(current)
  told = (workdir / "log.txt").read_text()[place:]
  assert told.count("making") == 4  # its three parts, and the comparison
  found = small_run.read_bytes(workdir)
  timed = ("costs.json", "table.md", "compare.html", "provenance.json")
  for name, content in wanted.items():
    if name != "times.json" and not (
      name.startswith("compare/") and name.endswith(timed)
    ):
      assert found[name] == content, name
  assert set(found) == set(wanted)


def test_equal_steps_and_one_pool(base, tmp_path):
  settings = {**SMALL, "compare.match": "steps", "compare.fresh_pools": False}
  settings |= {"compare.seeds": "7", "tune.batch": 16, "compare.strategies": "random"}
  with small_run.open_run(tmp_path, base, **settings) as current:
    stages.compare(current)
  results = read(tmp_path / "compare/results.json")
  full, random = results["arms"]
  assert full["steps"] == random["steps"] == math.ceil(full["rows"] / 16) > 1
  assert (tmp_path / "pool.parquet").exists() and (tmp_path / "demo_pool").exists()
  assert sorted(p.name for p in (tmp_path / "seeds/7").iterdir()) == [
    "clusters",
    "logs",
    "scores",
    "seed",
  ]
  entry = next(e for e in results["table"] if e["strategy"] == RANDOM)
  assert entry["mean"]["low"] is None and entry["minus_full"]["p"] is None
  seen = {x["arm"]: x["samples"] for x in read(tmp_path / "compare/costs.json")["arms"]}
  assert seen["full-100%-7"] == full["rows"] and seen["random-25%-7"] > random["rows"]


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("strategies", "kl,kl", "two arms would write to arms/kl-25%-3"),
    ("strategies", "klx", r"has 'klx' \(did you mean kl\?\); there are kl"),
    ("strategies", "", "compare.strategies is empty"),
    ("strategies", None, "compare.strategies is empty"),
    ("strategies", "ifd", "needs the signal 'ifd'"),
    ("budgets", "25%,25%", "two arms would write to arms/kl-25%-3"),
    ("budgets", "25%,25.0%", "'25%' and '25.0%', which are the same"),
    ("budgets", (), "compare.budgets is empty"),
    ("budgets", "many", "compare.budgets is 'many'"),
    ("seeds", "3,3", "compare.seeds has 3 twice"),
    ("seeds", "3,x", "compare.seeds has 'x'"),
    ("seeds", " , ", "compare.seeds is empty"),
    ("match", "rows", "compare.match='rows'"),
  ],
)
def test_a_wrong_plan_is_refused_before_anything_is_made(
  base, tmp_path, key, value, message
):
  settings = {**SMALL, f"compare.{key}": value}
  with small_run.open_run(tmp_path, base, **settings) as current:
    with pytest.raises(InputError, match=message):
      stages.compare(current)
  assert not (tmp_path / "seeds").exists()


def test_fresh_pools_need_a_drawn_pool(base):
  cfg = small_run.make_config(base, **{**SMALL, "pool.demo.rows": 0})
  with pytest.raises(InputError, match="fresh_pools draws the demo pool"):
    read_plan(cfg)


def test_controls_are_always_in_the_plan(base):
  settings = {"compare.strategies": "full,kl", "compare.budgets": ("1%", "500 rows")}
  plan = read_plan(small_run.make_config(base, **settings | {"compare.seeds": 5}))
  assert [arm.name(5) for arm in plan.arms] == [
    "full-100%-5",
    *("random-1%-5", "kl-1%-5", "random-500rows-5", "kl-500rows-5"),
  ]
  assert plan.seeds == (5,)


# Statistics -----------------------------------------------------------------

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
  table = summary.tabulate(lines, ["a", "b", "c"])
  macro = {x["strategy"]: x for x in table if x["part"] == "macro"}
  full, control, kl, top = (values[arm] for arm in arms)
  wanted = [scipy.stats.ttest_rel(own, control).pvalue for own in (kl, top)]
  for name, p, holm in zip(("kl", "top"), wanted, intervals.holm(wanted), strict=True):
    assert macro[name]["minus_random"]["p"] == pytest.approx(p)
    assert macro[name]["minus_random"]["holm"] == pytest.approx(holm)
  assert macro["kl"]["of_full"]["value"] == pytest.approx(np.mean(kl / full))
  assert macro["full"]["of_full"]["value"] == 1
  assert macro["full"]["minus_random"] is None is macro["random"]["minus_random"]
  tasks = [x for x in table if x["part"] == "task" and x["strategy"] == "kl"]
  found = [x["minus_full"]["holm"] for x in tasks]
  assert found == intervals.holm([x["minus_full"]["p"] for x in tasks])


def test_a_full_pool_at_zero_gives_no_quotient():
  lines = [
    {**arm._asdict(), "rows": 1, "macro": value, "overall": value, "tasks": {}}
    for arm, value in ((Arm(FULL, WHOLE), 0.0), (Arm(RANDOM, "5%"), 0.5))
  ]
  assert {entry["of_full"] is None for entry in summary.tabulate(lines, [])} == {True}


SETS = st.lists(st.integers(0, 30), unique=True)


@given(SETS, SETS)
def test_jaccard_equals_sets(first, second):
  found = summary.jaccard(np.array(first, int), np.array(second, int))
  either = set(first) | set(second)
  assert found == (len(set(first) & set(second)) / len(either) if either else 1)


@pytest.mark.parametrize(
  ("rows", "steps", "batch"), [(10, 3, 4), (10, 4, 4), (10, 7, 3), (3, 5, 8)]
)
def test_samples_of_steps_are_those_of_the_packing(rows, steps, batch):
  from mllm_selector_jax.data import packing

  made = packing.training_steps(rows, np.full(rows, 5), batch, 9, 0, 20)[:steps]
  seen = sum(len(items) for step in made for items in step)
  assert costs.count_samples(rows, steps, batch) == seen
