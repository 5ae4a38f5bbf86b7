"""What `pool.data` names, and which rows of it are taken."""

import json
import os

import numpy as np
import pytest

from mllm_selector_jax.data.files import fingerprint, mixture
from mllm_selector_jax.data.pool import pool_check, summary_text
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.types import InputError
from tests.data.pools_on_the_spot import make_encoder, make_record


def write(folder, name, start, count):
  records = [make_record(n) for n in range(start, start + count)]
  (folder / name).write_text("".join(json.dumps(r) + "\n" for r in records))


@pytest.fixture
def folder(tmp_path):
  write(tmp_path, "a.jsonl", 0, 10)
  write(tmp_path, "b.jsonl", 10, 10)
  return tmp_path


def take(folder, *entries, seed=0):
  """The ids that a mixture of (file, strategy) takes, and the summary."""
  lines = [
    f"  - json_path: {file}\n    sampling_strategy: {strategy}"
    for file, strategy in entries
  ]
  (folder / "mix.yaml").write_text("datasets:\n" + "\n".join(lines))
  data, out = [str(folder / "mix.yaml")], folder / "out.parquet"
  found = pool_check.check_pool(data, None, make_encoder(), 100, out, seed=seed)
  return [int(name[3:]) for name in read_table(out).id], found


@pytest.mark.parametrize(
  ("strategy", "ids"),
  [
    ("all", range(10)), ("first:3", range(3)), ("first:30%", range(3)),
    ("first:25%", range(3)), ("end:2", (8, 9)), ("end:15%", (8, 9)),
    ("first:99", range(10)), ("end:99", range(10)), ("first:0.5%", range(1)),
    ("first:10.0%", range(1)), ("end:.1%", (9,)), ("'first: 25%'", range(3)),
    (f"first:{2**31}", range(10)),
  ],
)  # fmt: skip
def test_strategies(folder, strategy, ids):
  taken, found = take(folder, ("a.jsonl", strategy), ("b.jsonl", "first:1"))
  assert taken == [*ids, 10]
  left = {"a.jsonl": 10 - len(ids), "b.jsonl": 9}
  rows = sum(left.values())
  assert f"not taken    {rows:,} rows" in summary_text.format_summary(found)
  told = {name.rpartition("/")[2]: count for name, count in found["not_taken"].items()}
  assert told == {name: count for name, count in left.items() if count}


def test_random_follows_from_the_seed_and_keeps_the_order(folder):
  some = [take(folder, ("a.jsonl", "random:50%"), seed=s)[0] for s in range(6)]
  assert all(len(ids) == 5 and ids == sorted(set(ids)) for ids in some)
  assert take(folder, ("a.jsonl", "random:50%"), seed=3)[0] == some[3]
  assert len({tuple(ids) for ids in some}) > 1


def test_choose_counts_only_where_it_must():
  def never():
    raise AssertionError

  assert mixture.choose(mixture.PoolPart("x"), never, 0) is None
  assert mixture.choose(mixture.PoolPart("x", "first:2"), never, 0).tolist() == [0, 1]
  chosen = mixture.choose(mixture.PoolPart("x", "random:7"), lambda: 1000, 0)
  assert len(np.unique(chosen)) == 7 and (np.diff(chosen) > 0).all()


def test_folders_patterns_and_splits(folder):
  assert [part.file for part in mixture.expand([str(folder)])] == [
    str(folder / "a.jsonl"),
    str(folder / "b.jsonl"),
  ]
  assert mixture.expand([str(folder / "b*.jsonl")]) == [
    mixture.PoolPart(str(folder / "b.jsonl"))
  ]
  tfds = folder / "tfds"
  tfds.mkdir()
  for name in (
    "p-train.array_record-00000-of-00001",
    "p-val.array_record-00000-of-00001",
  ):
    (tfds / name).touch()
  (found,) = mixture.expand([str(tfds)])
  assert found.file.endswith("train.array_record-00000-of-00001")
  (tfds / "p-train.array_record-00000-of-00001").rename(tfds / "p-test.array_record")
  with pytest.raises(InputError, match="the splits test, val"):
    mixture.expand([str(tfds)])
  with pytest.raises(InputError, match="a folder without"):
    (folder / "empty").mkdir()
    mixture.expand([str(folder / "empty")])
  with pytest.raises(InputError, match="no file matches"):
    mixture.expand([str(folder / "c*.jsonl")])


@pytest.mark.parametrize(
  ("text", "told"),
  [
    ("datasets: 3", "not a mixture"), ("[1", "not a mixture"), ("", "not a mixture"),
    ("datasets: []", "not a mixture"), ("a: &a [*a]", "anchors"),
    ("datasets: &x [{json_path: a.jsonl}]", "anchors"),
    ("datasets: [{json_path: a.jsonl, sampling_strategy: 'first:1.5'}]", "allowed are"),
    ("datasets: [{json_path: '{a,c}.jsonl'}]", "c.jsonl: the pool file does not exist"),
    ("datasets: [{}]", "names no json_path"), ("datasets: [3]", "no json_path"),
    ("datasets: [{json_path: a.jsonl, sampling_strategy: some}]", "'some'; allowed"),
    ("datasets: [{json_path: a.jsonl, sampling_strategy: 'first:-1'}]", "allowed are"),
    ("datasets: [{json_path: b.yaml}]", "itself a mixture"),
    ("datasets: [{json_path: none.json}]", "none.json: the pool file does not exist"),
    ("datasets: !!python/object/apply:os.getcwd []", "not a mixture"),
  ],
)  # fmt: skip
def test_a_mixture_that_cannot_be_followed(folder, text, told):
  (folder / "mix.yaml").write_text(text)
  data = [str(folder / "mix.yaml")]
  with pytest.raises(InputError, match=told):
    pool_check.check_pool(data, None, make_encoder(), 100, folder / "o.parquet")


def test_what_yaml_says_is_read_as_yaml(folder):
  (folder / "a.jsonl").rename(folder / "q&a.jsonl")
  text = """# Q&A part of the mix & more
datasets:
  - json_path: q&a.jsonl   # released
    sampling_strategy: "first:20%"
  - json_path: 'b.jsonl'
    sampling_strategy: end:1
  - json_path: b.jsonl
    sampling_strategy: end:1
"""
  (folder / "mix.yaml").write_text(text)
  parts = mixture.expand([str(folder / "mix.yaml")])
  assert [(os.path.basename(part.file), part.take) for part in parts] == [
    ("q&a.jsonl", "first:20%"), ("b.jsonl", "end:1"), ("b.jsonl", "end:1")
  ]  # fmt: skip
  out = folder / "out.parquet"
  data = [str(folder / "mix.yaml")]
  found = pool_check.check_pool(
    data, None, make_encoder(), 100, out, duplicate_ids="keep"
  )
  assert found["rows"] == found["ok"] == 4


def test_braces_are_several_files(folder):
  wanted = [str(folder / "a.jsonl"), str(folder / "b.jsonl")]
  (folder / "mix.yaml").write_text("datasets: [{json_path: '{a, b}.jsonl'}]")
  for data in (str(folder / "mix.yaml"), f"{folder}/{{a,b}}.json{{l}}"):
    assert [part.file for part in mixture.expand([data])] == wanted
  (folder / "{a,b}.jsonl").touch()  # by that name it is one
  name = str(folder / "{a,b}.jsonl")
  assert mixture.expand([name]) == [mixture.PoolPart(name)]


def test_brackets_and_patterns(folder):
  inside = folder / "set[1](a,b)"
  inside.mkdir()
  write(inside, "x.jsonl", 0, 1)
  write(inside, "y[2].jsonl", 0, 1)
  for name, wanted in (
    (f"{inside}/*.jsonl", ["x.jsonl", "y[2].jsonl"]),
    (f"{inside}/y[2].jsonl", ["y[2].jsonl"]),
    (f"{inside}/[xz].jsonl", ["x.jsonl"]),
    (str(inside), ["x.jsonl", "y[2].jsonl"]),
    (f"{folder}/set*", ["x.jsonl", "y[2].jsonl"]),
  ):
    found = [os.path.basename(part.file) for part in mixture.expand([name])]
    assert found == wanted, name


def test_the_fingerprint_follows_mixture_and_files(folder):
  take(folder, ("a.jsonl", "all"))
  data = [str(folder / "mix.yaml")]
  before = fingerprint.fingerprint(data, None)
  take(folder, ("a.jsonl", "first:2"))
  after = fingerprint.fingerprint(data, None)
  write(folder, "a.jsonl", 0, 9)
  assert len({before, after, fingerprint.fingerprint(data, None)}) == 3
