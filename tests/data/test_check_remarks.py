"""What the check says of rows that it keeps, and in its last lines."""

import json

import pytest

from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.data.images.image_folders import ImageFolders
from mllm_selector_jax.data.pool import pool_check, pool_summary, remedies, summary_text
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.types import REASONS
from tests.data.pools_on_the_spot import (
  make_encoder,
  make_record,
  talk,
  write_images,
  write_records,
)


def run(folder, records, images=None, encoder=None, **options):
  path = write_records(folder / "pool.json", records)
  out = folder / "pool.parquet"
  images = folder / "images" if images is None else images
  encoder = encoder or make_encoder()
  found = pool_check.check_pool([path], images, encoder, 10_000, out, **options)
  return found, read_table(out), summary_text.format_summary(found)


@pytest.fixture
def folder(tmp_path):
  write_images(tmp_path / "images", "1.png", "2.png")
  return tmp_path


def test_what_is_read_otherwise_is_counted(folder):
  (folder / "images/link.png").symlink_to(folder / "images/1.png")
  both = talk("<image>\na", "b") + talk("<image>\nc", "d")
  masked = talk("e", "f") + [{"from": "human", "value": "g"}]
  masked += [{"from": "gpt", "value": "h", "loss": False}]
  records = [
    {"image": "1.png", "conversations": talk("what?", "red")},
    {"image": "link.png", "conversations": both, "tools": "x"},
    {"conversations": masked, "tools": "y", "note": ""},
    {"system": "Be brief.", "conversations": talk("what?", "blue")},
  ]
  found, table, text = run(folder, records)
  assert table.ok.all()
  assert found["remarks"] == {
    "not read: tools": 2,
    record_schemas.PLACED: 1,
    record_schemas.REPEATED: 1,
    pool_summary.LINKED: 1,
    pool_summary.MASKED: 1,
    pool_summary.SYSTEM_USED: 1,
  }
  for remark, count in found["remarks"].items():
    assert f"{count:,} rows: {remark}" in text
  encoder = make_encoder()
  encoder.takes_system = False
  found, _, _ = run(folder, records, encoder=encoder)
  assert found["remarks"]["not read: system"] == 1
  assert pool_summary.SYSTEM_USED not in found["remarks"]


def test_fields_without_end_are_counted_together(folder):
  records = [{**make_record(n), f"field-{n}": n} for n in range(130)]
  found, _, _ = run(folder, records)
  assert len(found["remarks"]) <= 101
  assert found["remarks"]["not read: further fields"] == 30


def test_the_last_lines_say_what_would_keep_the_rows(folder):
  good = [make_record(n, "1.png") for n in range(150)]
  gone = [make_record(n, "gone/x.png") for n in range(2)]
  _, _, text = run(folder, [*good, *gone])
  assert text.endswith(
    "Look: 2 rows (1.3 %) are set aside.\n  No row is left of: gone\n"
    f"  missing image, 2 rows: {remedies.REMEDIES['missing image']}"
  )
  # Not above 1 %, but a whole source.
  _, _, text = run(folder, [*(2 * good), *gone])
  assert "Look: 2 rows (0.7 %)" in text and "No row is left of: gone" in text
  # Neither.
  _, _, text = run(folder, [*(2 * good), make_record(1, "none.png")])
  assert "Look:" not in text
  assert remedies.REMEDIES.keys() == REASONS.keys()


def test_links_out_of_the_folder_can_be_refused(folder):
  write_images(folder / "elsewhere", "3.png")
  (folder / "images/out").symlink_to(folder / "elsewhere")
  (folder / "images/in.png").symlink_to("1.png")
  records = [make_record(0, "out/3.png"), make_record(1, "in.png")]
  found, table, _ = run(folder, records)
  assert table.ok.all() and found["remarks"] == {pool_summary.LINKED: 2}
  images = ImageFolders.of(folder / "images", links=False)
  found, table, text = run(folder, records, images)
  assert table.reason.tolist() == ["unsafe path", None]
  assert "pool.links=follow" in text


def test_several_folders_and_absolute_paths(folder):
  write_images(folder / "more", "x.png", "y.png")
  path = str(folder / "more/x.png")
  records = [make_record(0, "1.png"), make_record(1, "y.png"), make_record(2, path)]
  _, table, _ = run(folder, records, [folder / "images", folder / "more"])
  assert table.ok.all() and table.images[2] == (path,)
  _, table, _ = run(folder, records)
  assert table.reason.tolist() == [None, "missing image", "unsafe path"]


def stop_after(rows):
  def progress(done, total):
    if done >= rows:
      raise KeyboardInterrupt

  return progress


@pytest.mark.parametrize("stops", [[25], [12, 31], [12, 13, 25, 47]])
def test_a_check_that_was_stopped_goes_on_by_part(folder, monkeypatch, stops):
  monkeypatch.setattr(pool_check.pool_table, "GROUP_ROWS", 10)
  monkeypatch.setattr(pool_check, "BLOCK_ROWS", 6)
  records = [make_record(n % 40, f"{n % 2 + 1}.png") for n in range(60)]
  records[7] = {"id": "broken"}
  records[33] = {**make_record(33), "tools": "x"}
  options = {"duplicate_rows": "aside", "duplicate_ids": "keep"}
  found, table, _ = run(folder, records, **options)
  wanted = (folder / "pool.parquet").read_bytes(), json.dumps(found)
  assert table.reason.tolist().count("duplicate row") == 19
  (folder / "pool.parquet").unlink()
  described = []
  describe = pool_check.describe_row
  monkeypatch.setattr(
    pool_check,
    "describe_row",
    lambda row, *rest: (described.append(row), describe(row, *rest))[1],
  )
  start = 0
  for rows in stops:
    end = start
    while end < rows:  # a check stops at the end of a block
      end += pool_check.BLOCK_ROWS
    start = end // pool_check.pool_table.GROUP_ROWS * pool_check.pool_table.GROUP_ROWS
    with pytest.raises(KeyboardInterrupt):
      run(folder, records, resume=True, progress=stop_after(rows), **options)
  described.clear()
  found, _, _ = run(folder, records, resume=True, **options)
  assert ((folder / "pool.parquet").read_bytes(), json.dumps(found)) == wanted
  # What whole parts hold is not looked at again.
  assert described == list(range(start, 60))
  assert not list(folder.glob(".*"))


def test_a_new_check_does_not_go_on_from_an_old_one(folder, monkeypatch):
  monkeypatch.setattr(pool_check.pool_table, "GROUP_ROWS", 10)
  monkeypatch.setattr(pool_check, "BLOCK_ROWS", 6)
  with pytest.raises(KeyboardInterrupt):
    run(folder, [make_record(n) for n in range(40)], progress=stop_after(30))
  assert list(folder.glob(".*"))
  records = [make_record(n) for n in range(100, 140)]
  _, table, _ = run(folder, records)
  assert table.id[0] == "id-100" and not list(folder.glob(".*"))
