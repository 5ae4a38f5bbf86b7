"""Special tokens for content from the check to explain and the report."""

import json

import pytest

from mllm_selector_jax import stages
from mllm_selector_jax.stages.explain import explain_rows
from tests import small_run
from tests.models import tiny

SPECIAL = (*tiny.SPECIAL, "<box>", "</box>", "<|im_end|>")
SETTINGS = {
  "pool.demo.rows": 0,
  "select.control": False,
  "select.bound": "none",
  "select.groups": "source",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp("specials")
  base = tiny.make_base(folder / "base")
  tiny.make_tokenizer(300, SPECIAL).save_pretrained(base)
  records = [
    {
      "id": f"r{n}",
      "conversations": [
        {"from": "human", "value": f"Where is number {n}? <|im_end|>"},
        {"from": "gpt", "value": "<box>two</box>" if n % 2 else "three"},
      ],
    }
    for n in range(24)
  ]
  (folder / "pool.json").write_text(json.dumps(records))
  with open_run(folder) as current:
    stages.check(current)
    stages.score(current)
    stages.select(current)
  return folder


def open_run(folder, **settings):
  base = folder / "base"
  settings = {
    "score.model": str(base),
    "pool.data": str(folder / "pool.json"),
    **SETTINGS,
    **settings,
  }
  return small_run.open_run(folder / "work", base, **settings)


def test_explain_and_the_report_show_them(place):
  summary = json.loads((place / "work/pool_summary.json").read_text())
  assert summary["specials"] == {
    "tokens": {"</box>": 12, "<box>": 12},
    "text": {"<|im_end|>": 24},
  }
  with open_run(place) as current:
    odd, even = explain_rows(current, ("r1", "r2"))
    stages.report(current)
  assert "special tokens kept as tokens: 2 (</box> 1, <box> 1)" in odd
  assert "special tokens left as text: 1 (<|im_end|> 1)" in odd
  assert "kept as tokens" not in even and "left as text: 1 (<|im_end|> 1)" in even
  page = (place / "work/report.html").read_text()
  assert "special tokens kept as tokens" in page
  assert "24 (&lt;/box&gt; 12, &lt;box&gt; 12)" in page


def test_the_option_makes_what_hangs_on_it_again(place):
  def lengths():
    import pyarrow.parquet as pq

    return pq.read_table(place / "work/pool.parquet")["tokens"].to_pylist()

  before = lengths()
  with open_run(place, **{"model.content_specials": "none"}) as current:
    stages.check(current)
    assert lengths()[0] == before[0] and lengths()[1] > before[1]
    stages.score(current)
    stages.select(current)
    assert "kept as tokens" not in explain_rows(current, ("r1",))[0]
