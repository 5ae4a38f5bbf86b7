"""Whatever a pool file holds: rows, rows set aside with a reason, or one error."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data import mutations

CASES = 2000 // (2 * len(mutations.KINDS)) + 1

fuzz = settings(
  max_examples=CASES,
  deadline=None,
  database=None,
  derandomize=True,
  suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("kind", mutations.KINDS)
def test_records_of_any_kind_are_all_counted(kind, tmp_path):
  @fuzz
  @given(st.lists(mutations.records, min_size=1, max_size=4), st.integers(0, 2**32))
  def run(values, seed):
    path = mutations.write_pool(kind, values, random.Random(seed), tmp_path)
    found = mutations.read_all(path)
    if kind == ".tar":  # a sample may have lost its record, or its key
      assert not isinstance(found, str) or "no sample" in found
    elif kind.startswith(".jsonl") and not isinstance(values[0], dict):
      pass  # it begins as a list does, or as nothing that is read
    elif kind.startswith(".jsonl") and len(values) == 1:
      pass  # one object alone may be one that holds records
    else:
      assert not isinstance(found, str), found
      assert sum(found) == len(values)

  run()


@pytest.mark.parametrize("kind", mutations.KINDS)
def test_damaged_files_end_in_rows_or_one_error(kind, tmp_path):
  whole = {}

  @fuzz
  @given(st.integers(0, 2**32))
  def run(seed):
    rng = random.Random(seed)
    style = seed % 5
    if style not in whole:
      values = [
        {"id": n, "image": "a.png", "conversations": [
          {"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "é"}
        ]}
        for n in range(1 + style)
      ]  # fmt: skip
      path = mutations.write_pool(kind, values, random.Random(style), tmp_path)
      whole[style] = path, path.read_bytes()
    path, data = whole[style]
    path.write_bytes(mutations.mutate(data, rng))
    found = mutations.read_all(path)  # another exception is a fault
    if isinstance(found, str):
      assert path.name in found
    else:
      assert min(found) >= 0 and sum(found) > 0

  run()
