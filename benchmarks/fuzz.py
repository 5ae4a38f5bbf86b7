"""Reads mutated and made-up pool files, many more than the tests do.

    python -m benchmarks.fuzz [--cases 100000] [--made 0.1]

Each format has its process, so that a crash is seen as one. Of the cases, the share
`--made` is of records that hypothesis makes up, the others are damaged files. An
exception that is no `InputError`, a row without a count, or a case of more than ten
seconds ends it with exit status 1.
"""

import argparse
import collections
import multiprocessing
import pathlib
import random
import sys
import tempfile
import time

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.data import mutations

SLOWEST = 10.0  # seconds


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--cases", type=int, default=100_000)
  parser.add_argument("--made", type=float, default=0.1)
  arguments = parser.parse_args()
  each = -(-arguments.cases // len(mutations.KINDS))
  made = int(each * arguments.made)
  print("format | cases | made up | with rows | all aside | one error | s | slowest ms")
  failed = 0
  context = multiprocessing.get_context("spawn")
  for kind in mutations.KINDS:
    process = context.Process(target=run, args=(kind, made, each - made))
    process.start()
    process.join()
    if process.exitcode:
      print(f"{kind} | FAILED, exit status {process.exitcode}", flush=True)
      failed = 1
  return failed


def run(kind: str, made: int, damaged: int) -> None:
  start, counts = time.perf_counter(), collections.Counter()
  slowest = 0.0

  def read(path: pathlib.Path, rows: int | None = None) -> None:
    nonlocal slowest
    begin = time.perf_counter()
    found = mutations.read_all(path)
    slowest = max(slowest, time.perf_counter() - begin)
    assert slowest < SLOWEST, (kind, path.read_bytes()[:2000])
    if isinstance(found, str):
      counts["error"] += 1
    else:
      assert rows is None or sum(found) == rows, (found, rows)
      counts["rows" if found[0] else "aside"] += 1

  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)

    @settings(
      max_examples=made,
      deadline=None,
      database=None,
      suppress_health_check=list(HealthCheck),
      phases=[Phase.generate],
    )
    @given(st.lists(mutations.records, min_size=1, max_size=4), st.integers(0, 2**32))
    def make_up(values, seed):
      path = mutations.write_pool(kind, values, random.Random(seed), folder)
      read(path, None if kind in (".tar", ".jsonl") else len(values))

    if made:
      make_up()
    wholes = []
    for rows in range(1, 6):
      values = [make_record(number) for number in range(rows)]
      path = mutations.write_pool(kind, values, random.Random(rows), folder)
      wholes.append(path.read_bytes())
    for seed in range(damaged):
      rng = random.Random(seed)
      path.write_bytes(mutations.mutate(rng.choice(wholes), rng))
      try:
        read(path)
      except BaseException:
        print(f"{kind}, seed {seed}", flush=True)
        raise
  print(
    f"{kind} | {sum(counts.values()):,} | {made:,} | {counts['rows']:,} |"
    f" {counts['aside']:,} | {counts['error']:,} | {time.perf_counter() - start:.0f} |"
    f" {1000 * slowest:.0f}",
    flush=True,
  )


def make_record(number: int) -> dict:
  turns = [
    ("human", "<image>\nwhat is it?"),
    ("gpt", "a blé circle"),
    ("human", "and?"),
  ]
  turns.append(("gpt", "two"))
  return {
    "id": f"id-{number}",
    "image": "a.png",
    "conversations": [{"from": who, "value": said} for who, said in turns],
  }


if __name__ == "__main__":
  sys.exit(main())
