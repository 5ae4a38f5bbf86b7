"""A small comparison from end to end, and the figures it is made of."""

import dataclasses
import json
import math
import shutil
import types

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.merge_comparisons import merge
from mllm_selector_jax.comparison.comparison_plan import RANDOM
from mllm_selector_jax.configs import default
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.pipeline import card, flops
from mllm_selector_jax.pipeline.explain_rows import explain_rows
from mllm_selector_jax.pipeline.measure_sets import measure_files
from mllm_selector_jax.pipeline.tuning_recipe import read_modules
from mllm_selector_jax.selection import measures
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.training import train_step, work
from tests import small_run
from tests.training import toy

SMALL = {
  "pool.demo.rows": 60,
  "seed.rows": "10",
  "compare.strategies": ("kl", "random"),
  "compare.variants": "open: bound=none, kl_weight=3",
  "compare.budgets": "25%",
  "compare.seeds": "3,4",
  "compare.fresh_pools": True,
}
NAMES = ("full-100%", "random-25%", "kl-25%", "open-25%")
ARMS = [f"{arm}-{seed}" for seed in (3, 4) for arm in NAMES]
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
    COMMANDS["compare"](current)
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


def read_kept(arm):
  """Row numbers: an id may be that of several rows."""
  table = pq.read_table(arm / "selection/selection.parquet").to_pydict()
  return {row for row, kept in zip(table["row"], table["kept"], strict=True) if kept}


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
    ("25%", "random", "kl"),
    ("25%", "random", "open"),
    ("25%", "kl", "open"),
  ]
  kept, other = (
    [read_kept(workdir / f"arms/{arm}-{seed}") for arm in ("random-25%", "kl-25%")]
    for seed in (3, 4)
  )
  expected = np.mean([len(a & b) / len(a | b) for a, b in (kept, other)])
  assert shared[0]["jaccard"]["value"] == pytest.approx(expected)


def test_a_variant_is_the_strategy_with_its_own_settings(workdir):
  own, plain = (
    read(workdir / f"arms/{arm}-25%-3/selection/summary.json")["options"]
    for arm in ("open", "kl")
  )
  assert own == plain | {"bound": "none", "kl_weight": 3.0}
  assert (plain["bound"], plain["kl_weight"]) == ("mixture", 0.4)
  results = read(workdir / "compare/results.json")
  assert results["plan"]["variants"] == {
    "open": {"strategy": "kl", "bound": "none", "kl_weight": 3.0}
  }
  page = (workdir / "compare/compare.html").read_text()
  assert "<i>open</i> is strategy=kl, bound=none, kl_weight=3.0." in page


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
  ("trainable", "rank", "modules"),
  [
    ("decoder", 0, "decoder"),
    ("all", 0, "decoder"),
    ("decoder", 8, "decoder"),
    ("all", 8, "all"),
  ],
)
def test_flops_of_rows_are_those_that_training_counts_of_its_batches(
  base, trainable, rank, modules
):
  section = small_run.make_config(base).tune
  section.trainable, section.lora.rank = trainable, rank
  section.lora.modules = modules
  config, samples = toy.CONFIG, toy.random_samples(24)
  rates = flops.make_row_rates(config, section)
  rows = types.SimpleNamespace(
    tokens=np.array([len(one.tokens) for one, _ in samples.values()]),
    supervised=np.array([one.supervised.sum() for one, _ in samples.values()]),
    tiles=np.array([len(tiles) for _, tiles in samples.values()]),
  )
  params = mllm.abstract(config)
  if rank:
    lora = LoraConfig(rank, 1.0, read_modules(modules))
    config = dataclasses.replace(config, lora=lora)
    params = mllm.abstract(config)
  count = work.make_count(
    config, params, train_step.split_params(params, trainable)[0].keys()
  )
  counted = sum(count(batch).flops for batch, _ in toy.make_batches(epochs=2))
  found = flops.row_flops(config, rates, rows).sum() * 2
  assert found == pytest.approx(counted)
  if trainable == "all" and not rank:
    rates = flops.make_row_rates(config, None)
    forward = flops.row_flops(config, rates, rows).sum() * 2
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
    COMMANDS["compare"](current)
  assert small_run.read_bytes(workdir) == wanted
  assert "making" not in (workdir / "log.txt").read_text()[place:]
  shutil.rmtree(workdir / "arms/kl-25%-4")
  shutil.rmtree(workdir / "compare")
  place = len((workdir / "log.txt").read_text())
  with small_run.open_run(workdir, base, **SMALL) as current:
    COMMANDS["compare"](current)
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


def test_equal_steps_and_one_pool_then_the_full_pool_too(base, tmp_path):
  settings = {**SMALL, "compare.match": "steps", "compare.fresh_pools": False}
  settings |= {"compare.seeds": "7", "tune.batch": 16, "compare.strategies": "random"}
  settings["compare.variants"] = None
  with small_run.open_run(tmp_path, base, **settings, **{"compare.full": False}) as now:
    COMMANDS["compare"](now)
  assert not (tmp_path / "arms/full-100%-7/tuned").exists()
  (alone,) = read(tmp_path / "compare/results.json")["arms"]
  spent = read(tmp_path / "compare/costs.json")
  page = (tmp_path / "compare/compare.html").read_text()
  assert "minus full" not in page and "the whole pool" not in page
  with small_run.open_run(tmp_path, base, **settings) as current:
    COMMANDS["compare"](current)
  results = read(tmp_path / "compare/results.json")
  full, random = results["arms"]
  assert random == alone
  both = read(tmp_path / "compare/costs.json")
  assert spent["table"][0]["of_full_flops"] == both["table"][1]["of_full_flops"]
  assert spent["table"][0]["of_full_seconds"] is None
  assert both["table"][1]["of_full_seconds"] > 0
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


def test_a_search_is_of_the_strategy_itself_and_its_cost_is_told(base, tmp_path):
  settings = {**SMALL, "compare.seeds": "5", "select.search.candidates": 3}
  settings |= {"select.search.kl_weight": "2", "select.search.steps": 1}
  settings |= {"select.groups": "source", "select.search.development": "25%"}
  settings["select.search.cost"] = 9.0
  with small_run.open_run(tmp_path, base, **settings) as current:
    COMMANDS["compare"](current)
  found = read(tmp_path / "seeds/5/search/result/trials.json")
  won = found["candidates"][found["contender"]]["kl_weight"]  # whether it pays or not
  weight = {
    name: read(tmp_path / f"arms/{name}-25%-5/selection/summary.json")["options"]
    for name in ("kl", "open", "random")
  }
  assert weight["kl"]["kl_weight"] == won and weight["open"]["kl_weight"] == 3
  lines = {x["strategy"]: x for x in read(tmp_path / "compare/costs.json")["arms"]}
  spent = sum(line["flops"] for line in found["trials"])
  assert lines["kl"]["search_flops"] == spent > 0 < lines["kl"]["search_seconds"]
  for name in ("open", "random", "full"):
    assert lines[name]["search_flops"] == lines[name]["search_seconds"] == 0


@pytest.mark.parametrize(
  ("rows", "steps", "batch"), [(10, 3, 4), (10, 4, 4), (10, 7, 3), (3, 5, 8)]
)
def test_samples_of_steps_are_those_of_the_packing(rows, steps, batch):
  from mllm_selector_jax.data.packing import row_packing

  made = row_packing.training_steps(rows, np.full(rows, 5), batch, 9, 0, 20)[:steps]
  seen = sum(len(items) for step in made for items in step)
  assert flops.count_samples(rows, steps, batch) == seen


def test_rows_of_a_seed_are_explained_and_measured(base, workdir):
  for seed in (3, 4):
    arm = next(
      name for name in ARMS if name.startswith("kl") and name.endswith(f"-{seed}")
    )
    chosen = workdir / f"arms/{arm}/selection/selected.json"
    name = read(chosen)[0]["id"]
    with small_run.open_run(workdir, base, **SMALL, rng_seed=seed) as current:
      texts = explain_rows(current, (name,), arm)
      line = measure_files(current, (str(chosen),))["sets"][0]
    # An id may be that of a row set aside as well, which is said first.
    assert any("  kept: " in text for text in texts)
    assert line["rows"] == len(read(chosen))
    found = read(chosen.with_name("summary.json"))["groups"]
    shares = np.array([group["reached_share"] for group in found])
    target = np.array([group["target_share"] for group in found])
    assert line["divergence"] == measures.divergence(shares, target)


def test_an_arm_is_published_and_drawn_again(base, workdir, tmp_path):
  settings = {**SMALL, "export_selection.arm": "open-25%-4"}
  settings["export_selection.formats"] = "ids,card"
  with small_run.open_run(workdir, base, **settings) as current:
    COMMANDS["export-selection"](current)
  made = workdir / "arms/open-25%-4/exports"
  shutil.move(made, tmp_path / "exports")
  found = read(tmp_path / "exports/card/card.json")
  assert (found["config"]["bound"], found["seed"]) == ("none", 4)
  told = card.verify(tmp_path / "exports/card", default.get_config())
  assert told == f"verify: {found['kept']} of 60 rows are kept, as published."


def test_parts_of_a_comparison_merge_to_the_whole(workdir):
  whole = read(workdir / "compare/results.json")
  parts = [
    {"arms": [line for line in whole["arms"] if keep(line)]}
    for keep in (
      lambda line: line["seed"] == 3 and line["strategy"] != "open",
      lambda line: line["seed"] == 3 and line["strategy"] in ("open", "full"),
      lambda line: line["seed"] == 4,
    )
  ]
  merged, missing = merge(parts, None, None)
  assert merged["table"] == whole["table"] and not missing
  merged, missing = merge(parts[:1] + parts[2:], None, None)
  assert merged["plan"]["seeds"] == [4] and missing == {3: ["open at 25%"]}
  merged, missing = merge(parts[:1] + parts[2:], ["kl"], None)
  assert merged["plan"]["seeds"] == [3, 4] and not missing
  merged, _ = merge(parts, ["kl"], None, full=False)
  assert merged["plan"]["strategies"] == ["kl"]
