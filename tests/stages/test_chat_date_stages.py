"""A run that goes on on another day, with a chat template that writes the date."""

import json

import pyarrow.parquet as pq
import pytest
import transformers
from transformers.utils import chat_template_utils

from mllm_selector_jax import stages
from mllm_selector_jax.stages import base as bases
from tests import small_run
from tests.data.test_chat_date import LLAMA, MARKS, Clock
from tests.models import tiny


@pytest.fixture
def base(tmp_path):
  base = tiny.make_base(tmp_path / "base")
  tokenizer = tiny.make_tokenizer(300, (*tiny.SPECIAL, *MARKS))
  tokenizer.chat_template = LLAMA
  tokenizer.save_pretrained(base)
  return base


def test_finished_stages_are_unchanged_and_have_the_same_tokens(base, monkeypatch):
  records = [
    {
      "id": f"r{n}",
      "conversations": [
        {"from": "human", "value": f"What is number {n}?"},
        {"from": "gpt", "value": "two" if n % 2 else "a long answer, three"},
      ],
    }
    for n in range(12)
  ]
  data = base.parent / "pool.json"
  data.write_text(json.dumps(records))
  work = base.parent / "work"
  settings = {
    "model.conversation": "chat",
    "model.max_length": 256,
    "pool.demo.rows": 0,
    "pool.data": str(data),
    "seed.rows": "8",
    "seed.row_length": 256,
    "seed.batch": 8,
  }

  def go(**more):
    with small_run.open_run(work, base, **settings, **more) as current:
      stages.check(current)
      stages.seed(current)
      pool = bases.open_pool(current)
      reader = bases.open_reader(current, pool)
      return [reader.read(row)[0].tokens.tolist() for row in range(12)]

  first, before = go(), small_run.read_bytes(work)
  assert "2024-07-26 (model.chat_date)" in (work / "log.txt").read_text()
  monkeypatch.setattr(chat_template_utils, "datetime", Clock)
  said = len((work / "log.txt").read_text())
  assert go() == first and small_run.read_bytes(work) == before
  log = (work / "log.txt").read_text()[said:]
  assert "check: pool is unchanged" in log and "seed: seed is unchanged" in log
  table = pq.read_table(work / "pool.parquet")
  assert table["tokens"].to_pylist() == [len(tokens) for tokens in first]
  # Whoever asks the tuned model on that day writes what it was trained with.
  tokenizer = transformers.AutoTokenizer.from_pretrained(work / "seed/hf")
  turns = records[1]["conversations"]
  asked = tokenizer.apply_chat_template(
    [
      {"role": "user", "content": turns[0]["value"]},
      {"role": "assistant", "content": turns[1]["value"]},
    ],
    return_dict=True,
  )
  assert asked["input_ids"] == first[1]
  # Another date is another pool.
  later = go(**{"model.chat_date": "2031-11-30"})
  assert all(a != b for a, b in zip(later, first, strict=True))
  log = (work / "log.txt").read_text()
  assert "2031-11-30 (model.chat_date)" in log and "seed: making seed again" in log
