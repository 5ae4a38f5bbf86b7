"""Rows that state boxes, from the check to the export, with the bases' own forms."""

import json

import numpy as np
import pytest

from mllm_selector_jax.data.pool import pool_summary
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.pipeline.heldout_models import _first_tokens
from mllm_selector_jax.stages import COMMANDS
from tests import small_run
from tests.data.pools_on_the_spot import talk, write_images
from tests.data.qwen_vl_chats import CONTENT
from tests.models import tiny
from tests.stages.family_bases import FAMILIES, LENGTH, make_base

# Of an image of 7 x 9 pixels, which the tiny Qwen-VL bases resize to 16 x 24.
WRITTEN = {
  "llava": ("disc", "[0.22, 0.22, 0.5, 1.0]"),
  "llava_next": ("disc", "[0.22, 0.22, 0.5, 1.0]"),
  "internvl": ("<ref>disc</ref>", "<box>[[143, 222, 500, 1000]]</box>"),
  "qwen2_vl": (
    "<|object_ref_start|>disc<|object_ref_end|>",
    "<|box_start|>(143,222),(500,1000)<|box_end|>",
  ),
  "qwen2_5_vl": ("disc", "[2, 5, 8, 23]"),
  "qwen3_vl": ("disc", "[143, 222, 500, 1000]"),
  "qwen3_vl_moe": ("disc", "[143, 222, 500, 1000]"),
}


def open_run(folder, base, **settings):
  settings = {
    "pool.demo.rows": 0,
    "pool.data": str(folder / "pool.json"),
    "pool.images": str(folder / "images"),
    "score.model": str(base),
    "select.control": False,
    "select.bound": "none",
    "select.groups": "source",
    "export_selection.formats": "ms_swift,llava",
    "model.max_length": LENGTH,
    **settings,
  }
  return small_run.open_run(folder / "work", base, **settings)


def write_pool(folder, name, box):
  """Rows that state boxes, each followed by one that spells them."""
  write_images(folder / "images", "a.png")
  records = []
  for number in range(16):
    states = number % 2 == 0
    record = {
      "id": f"r{number}",
      "image": "a.png",
      "conversations": talk(
        f"<image>\n{number // 2}: where is the {'<ref-object>' if states else name}?",
        "<bbox>" if states else box,
      ),
    }
    if states:
      record["objects"] = {"ref": ["disc"], "bbox": [[1, 2, 3.5, 9]]}
    records.append(record)
  (folder / "pool.json").write_text(json.dumps(records))


def read_pool(folder):
  import pyarrow.parquet as pq

  return pq.read_table(folder / "work/pool.parquet").to_pydict()


@pytest.mark.parametrize("family", WRITTEN)
def test_the_form_is_that_of_the_base(tmp_path, family):
  base = make_base(tmp_path / "base", family)
  write_pool(tmp_path, *WRITTEN[family])
  conversation = FAMILIES[family][1]
  with open_run(tmp_path, base, **{"model.conversation": conversation}) as current:
    COMMANDS["check"](current)
    rows = base_model.open_pool(current)
    tokens = _first_tokens(current, rows, np.arange(len(rows)))
    first = base_model.open_reader(current, rows).read(0)[0].tokens.tolist()
    assert first == base_model.open_reader(current, rows).read(1)[0].tokens.tolist()
  pool = read_pool(tmp_path)
  assert set(pool["status"]) == {"ok"} and len(set(pool["hash"])) == 16
  for column in "tokens", "supervised", "answer":
    assert pool[column][::2] == pool[column][1::2], column
  assert tokens[::2].tolist() == tokens[1::2].tolist()
  found = json.loads((tmp_path / "work/pool_summary.json").read_text())
  counted = found["remarks"].get(pool_summary.OTHER_PIXELS, 0)
  assert counted == (8 if family == "qwen2_5_vl" else 0)
  special = {"tokens": {}, "text": {}}
  if family == "qwen2_vl":
    special["tokens"] = dict.fromkeys(sorted(CONTENT), 16)
  assert found["specials"] == special


def test_another_form_makes_the_pool_again_and_exports_keep_the_objects(tmp_path):
  base = tiny.make_base(tmp_path / "base")
  write_pool(tmp_path, *WRITTEN["llava"])
  with open_run(tmp_path, base) as current:
    COMMANDS["check"](current)
  before = read_pool(tmp_path)
  with open_run(tmp_path, base, **{"model.box_form": "internvl"}) as current:
    for command in "check", "score", "select", "export-selection":
      COMMANDS[command](current)
  after = read_pool(tmp_path)
  assert after["hash"] == before["hash"]
  assert after["tokens"][1::2] == before["tokens"][1::2]
  for row in range(0, 16, 2):
    assert after["tokens"][row] > before["tokens"][row]
  exports = tmp_path / "work/arms/main/exports"
  swift = (exports / "ms_swift/selected.jsonl").read_text().splitlines()
  llava = json.loads((exports / "llava/selected.json").read_text())
  assert len(llava) == len(swift) == 4
  for row in [*map(json.loads, swift), *llava]:
    states = int(row["id"][1:]) % 2 == 0
    assert ("objects" in row) == states == ("<bbox>" in json.dumps(row))


def test_a_base_of_unknown_form_needs_the_setting(tmp_path):
  base = tiny.make_base(tmp_path / "base", family="vipllava")
  write_pool(tmp_path, *WRITTEN["llava"])
  with open_run(tmp_path, base) as current:
    COMMANDS["check"](current)
  assert read_pool(tmp_path)["reason"] == ["box form", None] * 8
  with open_run(tmp_path, base, **{"model.box_form": "llava"}) as current:
    COMMANDS["check"](current)
  assert read_pool(tmp_path)["reason"] == [None] * 16
