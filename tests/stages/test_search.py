"""The closed loop on a small pool: trials, winner, split, resumption, rounds."""

import html
import itertools
import json
import shutil
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.inputs import held_out
from mllm_selector_jax.inputs.base_model import open_pool
from mllm_selector_jax.pipeline.clusters import read_keys
from mllm_selector_jax.pipeline.search import development, search_arms
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError, Stopped
from tests import small_run
from tests.real_processes import Forked, wait_for, write_config

SEARCH = {
  "select.search.candidates": 4,
  "select.search.kl_weight": "0.1,1",
  "select.search.steps": 1,
  "select.search.cost": 9.0,  # measuring the few rows would exceed a small one
  "select.search.development": "25%",
  "select.groups": "source",
  "select.control": True,
}


@pytest.fixture(scope="module")
def searched(base, scored, tmp_path_factory):
  folder = tmp_path_factory.mktemp("searched") / "work"
  shutil.copytree(scored, folder, symlinks=True)
  select_in(base, folder)
  return folder


def select_in(base, folder, **overrides):
  settings = {"score.model": str(base), **SEARCH, **overrides}
  with small_run.open_run(folder, base, **settings) as current:
    COMMANDS["select"](current)


def read(path):
  return json.loads(path.read_text())


def test_trials_are_halved_and_the_last_one_meets_random_rows(searched):
  result = read(searched / "search/result/trials.json")
  settings = [(each["strategy"], each["kl_weight"]) for each in result["candidates"]]
  assert settings == [("kl", 0.4), ("random", 0.4), ("kl", 0.1), ("kl", 1.0)]
  trials, rank = result["trials"], lambda x: (-x["value"], x["candidate"])
  assert [line["steps"] for line in trials] == [1, 1, 1, 2, 2, 4, 4]
  rungs = [trials[:3], trials[3:5], trials[5:]]
  assert [x["candidate"] for x in rungs[0]] == [0, 2, 3]  # random rows come last
  for place, (rung, after) in enumerate(itertools.pairwise(rungs)):
    best = sorted(rung, key=rank)[: 2 - place]
    went_on = [line["candidate"] for line in rung if line["goes_on"]]
    assert went_on == sorted(line["candidate"] for line in best)
    assert [line["candidate"] for line in after][: 2 - place] == went_on
  assert [x["candidate"] for x in rungs[2]] == [result["contender"], 1]
  summary = read(searched / "arms/main/selection/summary.json")
  won = result["candidates"][result["winner"]]
  assert {name: summary["options"][name] for name in won} == won
  for line in trials:  # every trial is kept
    arm = searched / f"search/arms/c{line['candidate']:02d}-{line['steps']}"
    parts = read(arm / "evaluation/results.json")["tasks"]
    assert {task: part["value"] for task, part in parts.items()} == line["parts"]
    assert len((arm / "tuned/metrics.jsonl").read_text().splitlines()) == line["steps"]
  # Twice the steps of the same rows, and the same measure.
  for first, second in itertools.pairwise(
    [x for x in trials if x["candidate"] == result["contender"]]
  ):
    name = f"c{first['candidate']:02d}-{first['steps']}"
    measure = read(searched / f"search/arms/{name}/evaluation/results.json")["flops"]
    assert 0 < measure < first["flops"]
    ratio = (second["flops"] - measure) / (first["flops"] - measure)
    assert ratio == pytest.approx(2, rel=0.1)
  table = (searched / "search/result/table.md").read_text()
  assert table.count("\n") == 9 and "kl_weight 0.1" in table and "won" in table
  assert "strategy random" in table
  assert "the trials, on the development split" in (searched / "log.txt").read_text()


def test_the_verdict_decides_and_is_told_everywhere(base, searched):
  result = read(searched / "search/result/trials.json")
  found = result["verdict"]
  tables = []
  for line in result["trials"][-2:]:
    arm = searched / f"search/arms/c{line['candidate']:02d}-{line['steps']}"
    tables.append(pq.read_table(arm / "evaluation/rows.parquet"))
  with small_run.open_run(searched, base, **SEARCH) as current:
    pool = open_pool(current)
  # The groups are the sources, each of which weighs as the root of its share.
  source = np.array(tables[0]["source"].to_pylist())
  share = {name: np.mean(pool.source[pool.ok] == name) ** 0.5 for name in set(source)}
  weight = np.array([share[name] / (source == name).sum() for name in source])
  weight /= weight.sum()
  values = [weight @ table["score"].to_numpy() for table in tables]
  assert [found["value"], found["random"]] == pytest.approx(values, rel=0.05)
  assert found["difference"] == pytest.approx(found["value"] - found["random"])
  assert found["questions"] == len(source)
  assert (result["winner"] == result["contender"]) == (found["low"] > 0)
  assert found["flops"] == sum(line["flops"] for line in result["trials"])
  summary = read(searched / "arms/main/selection/summary.json")
  assert summary["verdict"] == found
  assert found["statement"] in (searched / "log.txt").read_text()
  assert "verdict" not in read(searched / "arms/random/selection/summary.json")


def test_the_report_shows_every_trial(base, searched):
  settings = {"score.model": str(base), **SEARCH}
  with small_run.open_run(searched, base, **settings) as current:
    COMMANDS["report"](current)
  page = (searched / "report.html").read_text()
  assert "How the settings were chosen" in page and page.count("<td>dropped") == 3
  said = read(searched / "search/result/trials.json")["verdict"]["statement"]
  assert html.escape(said, quote=False) in page
  shutil.rmtree(searched / "measures")
  for path in searched.glob("report*"):
    path.unlink()


def test_a_held_out_row_is_never_selected(base, searched):
  arms = [*searched.glob("arms/*-seed0*"), *searched.glob("search/arms/*")]
  assert len(arms) == 9
  with small_run.open_run(searched, base, **SEARCH) as current:
    pool = open_pool(current)
  rows = np.flatnonzero(pool.ok)
  apart = set(rows[held_out.hold_out(read_keys(pool, rows), 0.25, 0)].tolist())
  assert 0.1 * len(rows) < len(apart) < 0.4 * len(rows)
  for arm in arms:
    found = pq.read_table(arm / "selection/selection.parquet").to_pydict()
    kept = {r for r, k in zip(found["row"], found["kept"], strict=True) if k}
    assert kept and not kept & apart, arm
    assert {found["reason"][row] for row in apart} == {"held out for development"}
    tuned = arm / "tuned/rows.parquet"
    if tuned.exists():
      assert not set(pq.read_table(tuned)["row"].to_pylist()) & apart
  counts = read(arm / "selection/summary.json")["reasons"]
  assert counts["held out for development"] == len(apart)
  trial = read(next(searched.glob("search/arms/*/evaluation/results.json")))
  assert sum(part["count"] for part in trial["tasks"].values()) == len(apart)


def test_a_search_goes_on_where_it_stopped(base, searched, tmp_path, monkeypatch):
  folder = tmp_path / "work"
  shutil.copytree(searched, folder, symlinks=True)
  wanted = small_run.read_bytes(folder)
  select_in(base, folder)
  assert small_run.read_bytes(folder) == wanted
  for name in ("search/result", "search/arms/c03-1", "arms"):
    shutil.rmtree(folder / name)
  for path in folder.glob("search/arms/*-[24]"):
    shutil.rmtree(path)
  place = len((folder / "log.txt").read_text())
  measure, calls = development.measure_arm, []

  def stop(current, arm, split):
    calls.append(arm)
    if len(calls) == 3:
      raise Stopped("before the third trial's measure")
    measure(current, arm, split)

  monkeypatch.setattr(development, "measure_arm", stop)
  with pytest.raises(Stopped):
    select_in(base, folder)
  monkeypatch.setattr(development, "measure_arm", measure)
  select_in(base, folder)
  assert small_run.read_bytes(folder) == wanted
  told = (folder / "log.txt").read_text()[place:]
  assert "making search/arms/c00-1" not in told
  assert told.count("making search/arms/c03-1/tuned") == 1


def test_a_killed_search_ends_as_one_that_was_left_alone(
  base, scored, searched, tmp_path
):
  folder = tmp_path / "work"
  shutil.copytree(scored, folder, symlinks=True)
  settings = {"score.model": str(base), **SEARCH}
  config = write_config(tmp_path / "config.py", base, **settings)
  first = Forked(folder, config, "select")
  wait_for(folder / "search/arms/c02-1/selection/provenance.json", first)
  first.kill()
  assert first.end(60)[0] == -signal.SIGKILL
  assert not (folder / "search/result").exists()
  made = (folder / "search/arms/c00-1/tuned/provenance.json").stat().st_mtime_ns
  status, said = Forked(folder, config, "select").end(300)
  assert status == 0, said
  kept = (folder / "search/arms/c00-1/tuned/provenance.json").stat().st_mtime_ns
  assert kept == made  # nothing that was whole is made again
  found = read(folder / "search/result/trials.json")
  alone = read(searched / "search/result/trials.json")
  assert found["winner"] == alone["winner"]
  for line, other in zip(found["trials"], alone["trials"], strict=True):
    assert line["value"] == pytest.approx(other["value"], abs=1e-6)
  name = "arms/main/selection/selected.json"
  assert (folder / name).read_bytes() == (searched / name).read_bytes()


def test_other_questions_may_be_given_but_not_the_test_s(base, scored, tmp_path):
  folder = tmp_path / "work"
  shutil.copytree(scored, folder, symlinks=True)
  test = folder / "demo_pool/evaluation/eval.jsonl"
  copied = tmp_path / "copy.jsonl"
  copied.write_bytes(test.read_bytes())
  for path in (test, copied):
    with pytest.raises(InputError, match=r"is the same file as .*eval.jsonl"):
      select_in(base, folder, **{"select.search.development": str(path)})
  assert not (folder / "search").exists()
  with pytest.raises(InputError, match="there is no such file"):
    select_in(base, folder, **{"select.search.development": "none.jsonl"})
  lines = test.read_text().splitlines()[:4]
  other = tmp_path / "development.jsonl"
  other.write_text("\n".join(lines) + "\n")
  settings = {
    "select.search.development": str(other),
    "select.search.images": str(folder / "demo_pool/evaluation/images"),
    "select.search.kl_weight": None,
    "select.search.candidates": 2,
  }
  select_in(base, folder, **settings)
  found = read(folder / "search/result/trials.json")["verdict"]
  assert (found["questions"], found["questions_are"]) == (4, "questions")
  reasons = read(folder / "arms/main/selection/summary.json")["reasons"]
  assert "held out for development" not in reasons
  trial = read(folder / "search/arms/c00-1/evaluation/results.json")
  assert trial["overall"]["count"] == 4


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"candidates": 1}, "candidates=1; it must be 2 or more, or 0"),
    ({"halving": 1}, "halving=1; it must be 2 or more"),
    ({"strategy": "stratified,grouped", "candidates": 3}, "the 4 strategies to comp"),
    ({"kl_weight": "much"}, "kl_weight has 'much', which is no number"),
    ({"development": "500"}, "it is a share of the pool"),
    ({"development": "100%"}, "it is a share of the pool"),
  ],
)
def test_a_search_that_makes_no_sense_is_refused(base, tmp_path, settings, message):
  given = {**SEARCH, **{f"select.search.{k}": v for k, v in settings.items()}}
  with small_run.open_run(tmp_path, base, **given) as current:
    with pytest.raises(InputError, match=message):
      search_arms.search(current)


@pytest.mark.parametrize("make", [COMMANDS["run"], COMMANDS["compare"]])
@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"signal": "visual"}, "select.signal needs the signal 'visual'"),
    ({"bound": "nine"}, "select.bound is 'nine'"),
    ({"groups": "source,colour"}, "select.groups names 'colour'"),
    ({"strategy": "kl,nine"}, "select.strategy is 'nine'"),
  ],
)
def test_a_wrong_candidate_is_refused_before_anything_is_made(
  base, tmp_path, make, settings, message
):
  given = {**SEARCH, **{f"select.search.{k}": v for k, v in settings.items()}}
  given["select.search.candidates"] = 3  # of five, that might not be drawn
  with small_run.open_run(tmp_path, base, **given) as current:
    with pytest.raises(InputError, match=message):
      make(current)
  assert not (tmp_path / "demo_pool").exists()


def test_the_tuned_model_scores_the_next_round(base, scored, tmp_path):
  folder = tmp_path / "work"
  shutil.copytree(scored, folder, symlinks=True)
  settings = {"score.model": str(base), "select.rounds": 2, "select.control": False}
  with small_run.open_run(folder, base, **settings) as current:
    COMMANDS["run"](current)
    assert current.workdir.path == folder and current.cfg.score.model == str(base)
  own = folder / "rounds/2"
  made = read(own / "scores/provenance.json")
  tuned = read(folder / "arms/main/tuned/provenance.json")
  assert made["inputs"]["model"] == tuned["digest"]
  seen = pq.read_table(folder / "arms/main/tuned/rows.parquet")["row"].to_pylist()
  marked = {
    line["row"]
    for path in (own / "scores").glob("*.parquet")
    for line in pq.read_table(path).to_pylist()
    if line["seed"]
  }
  assert marked == set(seen)
  assert "Round 2, scored by the tuned model" in (folder / "report.html").read_text()
  for part in ("selection", "tuned", "evaluation"):
    assert (own / "arms/main" / part / "provenance.json").exists()
  assert not (own / "arms/random").exists() and not (own / "seed").exists()
  wanted = small_run.read_bytes(folder)
  with small_run.open_run(folder, base, **settings) as current:
    COMMANDS["run"](current)
  assert small_run.read_bytes(folder) == wanted
