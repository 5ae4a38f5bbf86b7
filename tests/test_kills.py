"""A sample of benchmarks/kills.py on two quick stages, and that it tells faults."""

import dataclasses
import itertools

import pytest

from benchmarks import kill_logs, kills
from benchmarks.killed_stages import CHAINS

NAMES = ["check", "prepare"]
MOST = {"SIGKILL": 2, "SIGTERM": 1, "SIGINT": 1}


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
  chain = CHAINS["llava"]
  commands = dict(itertools.islice(chain.commands.items(), len(NAMES)))
  quick = dataclasses.replace(chain, commands=commands)
  place = tmp_path_factory.mktemp("kills") / "llava"
  return list(kills.make_stages(quick, place, NAMES, (1,)))


def hit(stage, log, seed=0):
  kills.hit_often(stage, sum(MOST.values()), MOST, log, seed)
  return kill_logs.count(log)


def test_runs_that_were_hit_end_with_the_same_bytes(stages, tmp_path):
  assert [stage.name for stage in stages] == NAMES
  for stage in stages:
    log = tmp_path / f"{stage.name}.txt"
    counts = hit(stage, log)
    assert {name: counts[name] for name in MOST} == MOST, log.read_text()
    assert counts["faults"] == 0 and counts["ended"] > 0, log.read_text()


def test_a_file_that_differs_is_a_fault(stages, tmp_path):
  stage = stages[0]
  wanted = dict(stage.wanted)
  stage.wanted["pool.parquet"] = b"other rows"
  stage.wanted["more.json"] = b"{}"
  try:
    counts = hit(stage, tmp_path / "log.txt")
  finally:
    stage.wanted = wanted
  said = (tmp_path / "log.txt").read_text()
  assert counts["faults"] > 0 and "differs in more.json, pool.parquet" in said


def test_the_table_adds_what_the_logs_hold(tmp_path, monkeypatch):
  monkeypatch.setattr(kill_logs, "LOGS", tmp_path)
  lines = ["hit: SIGKILL to 0 of 2, 1.00 s: [-9, 1] after 0.1 s"] * 3
  lines += ["hit: SIGTERM to all of 1, 1.00 s: [143] after 0.1 s"]
  lines += ["ended: the same bytes, 9 files, 2 process(es)"]
  kill_logs.find_log("seed (qwen3_vl)").write_text("\n".join(lines))
  table = kill_logs.format_table(kills.list_names()).splitlines()
  assert "| seed (qwen3_vl) | 3 | 1 | 0 | 3 | 1 | 0 |" in table
  assert table[-1] == "| all | 3 | 1 | 0 | 3 | 1 | 0 |"
