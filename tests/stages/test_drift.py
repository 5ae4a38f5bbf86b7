"""Shares of sources and answer formats that a selection changed."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.data.pool.answer_formats import name_formats
from mllm_selector_jax.pipeline import drift
from mllm_selector_jax.types import InputError


def mark(count, total):
  return np.arange(total) < count


def test_a_share_that_grew_much_is_found():
  values = np.repeat(np.array(["photos", "charts"], object), [240, 760])
  kept = np.r_[mark(124, 240), mark(76, 760)]  # 62 % of 200
  charts, photos = sorted(drift.find_shifts("source", values, kept))
  assert photos == ("source", "photos", 0.24, 0.62)
  assert charts == ("source", "charts", 0.76, pytest.approx(0.38))
  text = drift.list_warnings([photos, charts], "pool")
  assert len(text) == 1 and "'photos' is 62% of the kept rows and 24% of" in text[0]
  assert "select.normalise=source" in text[0]
  assert "select.normalise" not in drift.list_warnings([photos], "source")[0]


@pytest.mark.parametrize(
  ("sizes", "kept"),
  [
    ([500, 500], [60, 40]),  # by a fifth
    ([20, 980], [6, 94]),  # by four points
    ([100, 900], [4, 16]),  # of 20 rows, as random rows often have
    ([1000], [100]),  # one source
    ([500, 500], [0, 0]),  # nothing is kept
  ],
)
def test_what_random_rows_may_have_is_no_shift(sizes, kept):
  values = np.repeat(np.array(["a", "b"][: len(sizes)], object), sizes)
  chosen = [mark(k, n) for k, n in zip(kept, sizes, strict=True)]
  assert drift.find_shifts("source", values, np.concatenate(chosen)) == []


def test_random_rows_hardly_ever_shift():
  values = np.repeat(np.array(["a", "b", "c", "d"], object), [40, 200, 360, 400])
  rng = np.random.default_rng(0)
  found = [
    drift.find_shifts("source", values, rng.permutation(1000) < 100) for _ in range(300)
  ]
  assert sum(map(bool, found)) <= 1


def test_formats_are_named_by_length_and_rounds():
  turns = np.array([1, 1, 1, 1, 2, 3, 0])
  supervised = np.array([2, 5, 64, 65, 8, 300, 0])
  assert name_formats(turns, supervised).tolist() == [
    *("words", "phrases", "sentences", "texts"),
    *("words, several rounds", "texts, several rounds", "words"),
  ]


def test_necessity_is_ranked_inside_its_source(select):
  _, folder = select(normalise="source", groups="format", budget="20")
  arm = folder / "arms/main/selection"
  pool = pq.read_table(folder / "pool.parquet").to_pydict()
  chosen = pq.read_table(arm / "selection.parquet").to_pydict()
  scores = {}
  for part in sorted((folder / "scores").rglob("*.parquet")):
    table = pq.read_table(part).to_pydict()
    scores |= dict(zip(table["row"], table["loss"], strict=True))
  for source in set(pool["source"]):
    rows = [r for r in scores if pool["source"][r] == source]
    ranked = sorted(rows, key=lambda r: scores[r])
    assert chosen["necessity"][ranked[0]] == 0
    assert chosen["necessity"][ranked[-1]] == 1
  formats = {name.removeprefix("format ") for name in chosen["group_name"] if name}
  assert "phrases" in formats and "words, several rounds" in formats
  summary = json.loads((arm / "summary.json").read_text())
  assert summary["options"]["normalise"] == "source" and "drift" in summary
  with pytest.raises(InputError, match=r"select\.normalise names the column 'loss'"):
    select(normalise="loss")


def test_a_selection_of_an_earlier_version_remains(select):
  _, folder = select()
  path = folder / "arms/main/selection/provenance.json"
  assert "normalise" not in json.loads(path.read_text())["config"]
