"""The check in real processes, stopped and killed: it goes on to the same bytes."""

import json
import signal

import pytest

from mllm_selector_jax.data.pool import pool_table
from tests.models import tiny
from tests.real_processes import Forked, wait_for, write_config

ROWS = 2 * pool_table.GROUP_ROWS + 500
FILES = ("pool.parquet", "pool_summary.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder with a config, whose pool has two parts and a rest."""
  folder = tmp_path_factory.mktemp("check")
  with open(folder / "pool.jsonl", "w") as file:
    for row in range(ROWS):
      question = {"role": "user", "content": f"What is {row % 9_000} and one?"}
      answer = {"role": "assistant", "content": str(row % 9_000 + 1)}
      file.write(json.dumps({"id": row % 100, "messages": [question, answer]}) + "\n")
  base = tiny.make_base(folder / "base")
  overrides = {"pool.demo.rows": 0, "pool.data": str(folder / "pool.jsonl")}
  write_config(folder / "config.py", base, **overrides)
  return folder


def check(place, work):
  return Forked(work, place / "config.py", "check")


def test_it_goes_on_by_part_to_the_same_bytes(place):
  status, said = check(place, place / "unbroken").end(120)
  assert status == 0, said
  assert f"{ROWS:,} rows = {ROWS:,} usable" in said
  wanted = [(place / "unbroken" / name).read_bytes() for name in FILES]
  work = place / "work"
  parts = work / "pool.partial/.pool.parquet.parts"
  stopped = check(place, work)
  wait_for(parts / "000000.parquet", stopped)
  stopped.send(signal.SIGTERM)
  status, said = stopped.end(120)
  assert status == 143 and "The same command resumes from here." in said
  first = (parts / "000000.parquet").stat()
  killed = check(place, work)
  wait_for(parts / "000001.parquet", killed)
  killed.kill()
  killed.end(120)
  # The first part was not made again.
  now = (parts / "000000.parquet").stat()
  assert (now.st_ino, now.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
  assert not (work / "pool.parquet").exists()
  status, said = check(place, work).end(120)
  assert status == 0, said
  assert [(work / name).read_bytes() for name in FILES] == wanted
  assert not (work / "pool.partial").exists()
