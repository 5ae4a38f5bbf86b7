"""Ids, hashes and repeated rows, as the check of a pool sees them."""

import pytest

from mllm_selector_jax.data.pool import pool_check, summary_text
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.types import InputError
from tests.data.pools_on_the_spot import (
  check_records,
  make_encoder,
  make_record,
  talk,
  write_images,
  write_records,
)


@pytest.fixture
def folder(tmp_path):
  write_images(tmp_path / "images", "a/1.png", "a/2.png", "b/1.png", "top.png")
  return tmp_path


def test_ids(folder):
  ids = ["007", 7, 7.5, None, {"a": [1]}, True, "é\n<script>", ""]
  records = [{**make_record(n), "id": given} for n, given in enumerate(ids)]
  records.append({"conversations": talk("a", "b")})
  _, table = check_records(folder, records)
  assert table.ok.all()
  assert table.id.tolist() == [
    "007", "7", "7.5", "row-3", '{"a": [1]}', "true", "é\n<script>", "", "row-8"
  ]  # fmt: skip


def test_an_id_is_a_label_that_may_repeat(folder):
  records = [make_record(0, "a/1.png"), {**make_record(1), "id": "id-0"}]
  records += [{**make_record(n), "id": ""} for n in (2, 3)]
  found, table = check_records(folder, records)
  assert table.ok.all() and len(set(table.hash)) == 4
  assert table.id.tolist() == ["id-0", "id-0", "", ""]
  assert found["distinct_ids"] == 2 and found["duplicates"]["rows"] == 0
  assert "2 rows (50.0 %) have an id that an earlier row has" in (
    summary_text.format_summary(found)
  )
  found, table = check_records(folder, records, duplicate_ids="aside")
  assert table.reason.tolist() == [None, "duplicate id", None, "duplicate id"]
  assert "duplicate_ids=keep" in summary_text.format_summary(found)
  with pytest.raises(InputError, match="duplicate_ids='drop'"):
    check_records(folder, records, duplicate_ids="drop")


def test_rows_of_the_same_content_are_kept_and_counted(folder):
  write_images(folder / "images", "c/same_as_a1.png")
  records = [
    make_record(0, "a/1.png"),
    make_record(1),
    {**make_record(0, "c/same_as_a1.png"), "id": "other"},
    make_record(1),
    make_record(0, "a/2.png"),
  ]
  found, table = check_records(folder, records)
  assert table.ok.all()
  assert found["duplicates"] == {
    "rows": 2, "examples": [{"row": 2, "same_as": 0}, {"row": 3, "same_as": 1}]
  }  # fmt: skip
  assert "row 2 is row 0, row 3 is row 1" in summary_text.format_summary(found)
  found, table = check_records(folder, records, duplicate_rows="aside")
  assert table.reason.tolist() == [None, None, *2 * ["duplicate row"], None]
  assert not any(table.hash[[2, 3]])
  with pytest.raises(InputError, match="duplicate_rows='drop'"):
    check_records(folder, records, duplicate_rows="drop")


def test_an_id_is_taken_over_all_files(folder):
  one = write_records(folder / "1.json", [make_record(0), make_record(1)])
  two = write_records(folder / "2.json", [make_record(1), make_record(2)])
  out = folder / "out.parquet"
  pool_check.check_pool(
    [one, two], None, make_encoder(), 100, out, duplicate_ids="aside"
  )
  table = read_table(out)
  assert table.ok.tolist() == [True, True, False, True]
  assert table.row.tolist() == [0, 1, 2, 3]
  assert table.file.tolist() == [one, one, two, two]
  assert table.record(3).value == make_record(2)


def test_hash_is_of_conversation_and_image_alone(folder):
  write_images(folder / "images", "c/same_as_a1.png")
  records = [
    make_record(0, "a/1.png"),
    {**make_record(0, "c/same_as_a1.png"), "id": "other", "note": 1},
    {**make_record(0, "a/2.png"), "id": "other image"},
    {**make_record(1, "a/1.png"), "id": "other words"},
    {**make_record(0), "id": "no image"},
  ]
  turns = records[0]["conversations"]
  flipped = [dict(reversed(turn.items())) for turn in turns]
  records.append({"conversations": flipped, "image": "a/1.png", "id": "key order"})
  _, table = check_records(folder, records)
  assert table.hash[0] == table.hash[1] == table.hash[5]
  assert len(set(table.hash)) == 4
  assert all(len(value) == 32 for value in table.hash)
