"""The check of a pool: every row in comes out, usable or with its reason."""

import contextlib
import gc
import hashlib
import io
import itertools
import json
import os

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.data.images import decoding, pictures
from mllm_selector_jax.data.images.image_folders import ImageFolders
from mllm_selector_jax.data.pool import pool_check
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.types import InputError, RunError
from tests.data.pools_on_the_spot import (
  check_records,
  make_encoder,
  make_record,
  talk,
  write_images,
  write_records,
)
from tests.fixed_images import ONE_IMAGE


@pytest.fixture
def folder(tmp_path):
  write_images(tmp_path / "images", "a/1.png", "a/2.png", "b/1.png", "top.png")
  return tmp_path


def aside(table):
  return {
    int(row): (table.reason[row], table.detail[row])
    for row in np.flatnonzero(~table.ok)
  }


def test_good_rows(folder):
  records = [
    make_record(0, "a/1.png"),
    make_record(1),
    make_record(2, "a/1.png", source="mine"),
    make_record(3, "b/1.png", data_source="theirs"),
    make_record(4, "top.png"),
    make_record(5, "./a/2.png", extra=[1, None]),
    {**make_record(6), "image": None},
    {**make_record(7, "a/2.png"), "image": ["a/2.png"]},
  ]
  found, table = check_records(folder, records)
  assert table.ok.all()
  assert (found["rows"], found["ok"], found["aside"]) == (8, 8, {})
  assert table.id.tolist() == [f"id-{n}" for n in range(8)]
  assert table.row.tolist() == list(range(8))
  assert table.source.tolist() == [
    "a", "text", "mine", "theirs", "image", "a", "text", "a"
  ]  # fmt: skip
  assert list(table.images) == [
    ("a/1.png",), (), ("a/1.png",), ("b/1.png",), ("top.png",), ("./a/2.png",), (),
    ("a/2.png",),
  ]  # fmt: skip
  assert found["text_only"] == 2
  assert found["images"]["distinct"] == 4
  assert found["images"]["shared_uses"] == 4
  encoder = make_encoder()
  for row, record in enumerate(records):
    sizes = ONE_IMAGE if record.get("image") else []
    sample = encoder.encode(record["conversations"], sizes)
    assert table.tokens[row] == len(sample.tokens)
    assert table.supervised[row] == sample.supervised.sum()
    assert table.turns[row] == 1
    assert table.record(row).value == record
    if record.get("image"):
      data = (folder / "images" / table.images[row][0]).read_bytes()
      assert table.image_hashes[row] == (hashlib.sha256(data).hexdigest(),)
      with Image.open(io.BytesIO(data)) as image:
        assert table.image_sizes(row) == [image.size]
    else:
      assert table.image_hashes[row] == () == table.sizes[row]
  assert found["tokens"]["total"] == table.tokens.sum()


def test_every_bad_row_is_set_aside_with_its_reason(folder, tmp_path):
  root = folder / "images"
  (root / "empty.png").write_bytes(b"")
  whole = (root / "a/1.png").read_bytes()
  (root / "cut.png").write_bytes(whole[: len(whole) // 2])
  (root / "video.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 40)
  (root / "wide.png").write_bytes(b"")
  decoding.Image.new("L", (101, 100)).save(root / "wide.png")
  (folder / "secret.png").write_bytes(whole)
  os.mkfifo(root / "fifo.png")
  bad = {
    "malformed": [
      "not an object",
      {"id": "x1"},
      {"id": "x2", "conversations": None},
      {"id": "x3", "conversations": [{"from": "human"}]},
      {**make_record(4), "id": "x4", "image": 7},
      {**make_record(4), "id": "x5", "image": [{}]},
    ],
    "no supervised token": [
      {"id": "y1", "conversations": []},
      {"id": "y2", "conversations": talk("a", "")},
    ],
    "image marks": [
      {"id": "z1", "conversations": talk("<image>a", "b")},
      {"id": "z2", "conversations": talk("<image><image>", "b"), "image": "a/1.png"},
      {**make_record(70, "a/1.png"), "image": ["a/1.png", "b/1.png"]},
      {"id": "z3", "conversations": talk("a", "<image>"), "image": "a/1.png"},
    ],
    "too many images": [
      {
        "id": "s2",
        "conversations": talk("<image><image>", "b"),
        "image": ["a/1.png", "a/1.png"],
      },
    ],
    "missing image": [
      make_record(50, "a/none.png"), {**make_record(51, "a/1.png"), "image": ""},
    ],
    "unreadable image": [make_record(52, "empty.png"), make_record(53, "cut.png")],
    "huge image": [make_record(54, "wide.png")],
    "unsupported image": [make_record(55, "video.mp4")],
    "video": [{**make_record(56), "video": "v.mp4"}],
    "unsafe path": [
      make_record(60, "/etc/passwd"), make_record(61, "https://host/a.png"),
      make_record(62, "../secret.png"), make_record(64, "fifo.png"),
      make_record(65, "a"),
    ],
  }  # fmt: skip
  records = [
    make_record(0, "a/1.png"),
    *itertools.chain(*bad.values()),
    make_record(99),
  ]
  found, table = check_records(folder, records, max_images=1)
  wanted = {}
  for reason, rows in bad.items():
    wanted.update(
      dict.fromkeys(range(len(wanted) + 1, len(wanted) + 1 + len(rows)), reason)
    )
  assert {row: reason for row, (reason, _) in aside(table).items()} == wanted
  assert all(detail for _, detail in aside(table).values())
  assert np.flatnonzero(table.ok).tolist() == [0, len(records) - 1]
  assert {k: v["rows"] for k, v in found["aside"].items()} == {
    reason: len(rows) for reason, rows in bad.items()
  }
  assert found["rows"] == len(records) == found["ok"] + len(wanted)
  for name in ("tokens", "supervised", "turns"):
    assert not getattr(table, name)[~table.ok].any()
  assert not any(table.hash[~table.ok])
  assert len(found["aside"]["malformed"]["examples"]) == 5


def test_bytes_that_are_no_record(folder):
  path = folder / "pool.json"
  good = json.dumps(make_record(0)).encode()
  path.write_bytes(
    b"[" + good + b', {"id": "\xff"}, {"id": NaN}, {"a": ' + b"[" * 10_000
    + b"]" * 10_000 + b'}, {"a": "\\ud800"}, {"a": ' + b"1" * 5000 + b"}]"
  )  # fmt: skip
  pool_check.check_pool([str(path)], None, make_encoder(), 100, folder / "out.parquet")
  table = read_table(folder / "out.parquet")
  assert table.reason.tolist() == [None] + ["malformed"] * 5
  assert table.id.tolist()[1:] == [f"row-{n}" for n in range(1, 6)]


def test_long_rows_are_cut_and_counted_or_set_aside(folder):
  records = [make_record(0), make_record(1, conversations=talk("what?", "two " * 200))]
  found, table = check_records(folder, records, max_length=150)
  assert found["truncated"] == 1 and table.ok.all()
  assert table.tokens[1] == 150 and table.truncated.tolist() == [False, True]
  found, table = check_records(folder, records, max_length=150, long_rows="aside")
  assert aside(table) == {1: ("too long", "more than 150 tokens")}
  assert found["truncated"] == 0 and found["aside"]["too long"]["rows"] == 1
  with pytest.raises(InputError, match="long_rows='drop'"):
    check_records(folder, records, long_rows="drop")


def test_source_from_a_named_field(folder):
  records = [make_record(0, kind="x"), make_record(1, "a/1.png", source="s")]
  records.append(make_record(2, kind={"a": 1}))
  _, table = check_records(folder, records, source="field:kind")
  assert table.source.tolist() == ["x", "s", '{"a": 1}']


def test_cut_rows_are_counted(folder):
  records = [make_record(0), make_record(1, "a/1.png")]
  whole = len(make_encoder().encode(records[1]["conversations"], ONE_IMAGE).tokens)
  found, table = check_records(folder, records, whole - 1)
  assert table.truncated.tolist() == [False, True]
  assert found["truncated"] == 1
  assert table.tokens[1] == whole - 1
  assert table.supervised[1] == table.supervised[0] - 1


def test_the_same_pool_gives_the_same_bytes(folder, monkeypatch):
  records = [make_record(n, f"a/{n % 2 + 1}.png") for n in range(40)]
  records += [make_record(n, "none.png") for n in range(40, 50)]
  found, _ = check_records(folder, records, workers=1)
  one = (folder / "pool.parquet").read_bytes()
  monkeypatch.setattr(pool_check, "BLOCK_ROWS", 7)
  monkeypatch.setattr(pictures, "TASK_IMAGES", 1)
  again, _ = check_records(folder, records, workers=4)
  assert (folder / "pool.parquet").read_bytes() == one
  assert json.dumps(found) == json.dumps(again)


def test_blocks_are_bounded_in_bytes(folder, monkeypatch):
  monkeypatch.setattr(pool_check, "BLOCK_BYTES", 300)
  monkeypatch.setattr(pool_check.pool_table, "GROUP_ROWS", 7)
  found, table = check_records(folder, [make_record(n) for n in range(30)])
  assert found["ok"] == len(table) == 30
  assert table.row.tolist() == list(range(30))


def test_each_image_is_decoded_once(folder, monkeypatch):
  seen = []
  read = ImageFolders.read_place

  def watch(folders, place, name):
    seen.append(name)
    return read(folders, place, name)

  monkeypatch.setattr(ImageFolders, "read_place", watch)
  check_records(folder, [make_record(n, f"a/{n % 2 + 1}.png") for n in range(2000)])
  assert sorted(seen) == ["a/1.png", "a/2.png"]


def test_no_image_folder(folder):
  path = write_records(
    folder / "pool.json", [make_record(0, "a/1.png"), make_record(1)]
  )
  out = folder / "out.parquet"
  pool_check.check_pool([path], None, make_encoder(), 100, out)
  assert read_table(out).reason.tolist() == ["missing image", None]
  pool_check.check_pool([path], str(folder / "nowhere"), make_encoder(), 100, out)
  assert read_table(out).reason.tolist() == ["missing image", None]


def test_nothing_usable_is_an_error_with_the_reasons(folder):
  records = [make_record(n, "none.png") for n in range(7)] + [{"id": 1}]
  with pytest.raises(InputError) as caught:
    check_records(folder, records)
  text = str(caught.value)
  assert "none of the 8 rows" in text
  assert "missing image" in text and "malformed" in text and "and 2 more" in text
  assert sorted(os.listdir(folder)) == ["images", "pool.json"]


@pytest.mark.parametrize("data", [b"", b"[]", b"[{}", b"hello"])
def test_a_broken_file_leaves_the_old_table(folder, data):
  check_records(folder, [make_record(0)])
  old = (folder / "pool.parquet").read_bytes()
  (folder / "pool.json").write_bytes(data)
  with pytest.raises(InputError, match=r"pool\.json"):
    pool_check.check_pool(
      [str(folder / "pool.json")],
      None,
      make_encoder(),
      100,
      folder / "pool.parquet",
    )
  assert (folder / "pool.parquet").read_bytes() == old
  assert sorted(os.listdir(folder)) == ["images", "pool.json", "pool.parquet"]


def test_no_file_and_no_place(folder):
  with pytest.raises(InputError, match="No pool file"):
    pool_check.check_pool([], None, make_encoder(), 100, folder / "x.parquet")
  path = write_records(folder / "pool.json", [make_record(0)])
  with pytest.raises(RunError, match="could not be written"):
    pool_check.check_pool(
      [path], None, make_encoder(), 100, folder / "no" / "x.parquet"
    )


def test_progress_tells_rows_and_ends_at_the_total(folder, monkeypatch):
  monkeypatch.setattr(pool_check, "BLOCK_ROWS", 10)
  calls = []
  check_records(
    folder, [make_record(n) for n in range(95)], progress=lambda *a: calls.append(a)
  )
  assert calls[-1] == (95, 95)
  assert [done for done, _ in calls] == [*range(10, 95, 10), 95, 95]
  assert all(85 <= total <= 105 for _, total in calls)


def test_an_interruption_in_progress_leaves_nothing(folder):
  def stop(done, total):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    check_records(folder, [make_record(0)], progress=stop)
  assert not list(folder.glob("*.parquet*")) + list(folder.glob(".*"))


@pytest.mark.parametrize("before", [(700, 10, 10), (0, 10, 10), (90_000, 5, 5)])
@pytest.mark.parametrize("fails", [False, True])
def test_garbage_collection_is_as_it_was_after_a_check(folder, before, fails):
  thresholds, during = gc.get_threshold(), []

  def note(done, total):
    during.append(gc.get_threshold()[0])
    if fails:
      raise KeyboardInterrupt

  gc.set_threshold(*before)
  try:
    with pytest.raises(KeyboardInterrupt) if fails else contextlib.nullcontext():
      check_records(folder, [make_record(0)], progress=note)
    assert gc.get_threshold() == before
    assert during[0] == {700: pool_check.COLLECT_AFTER}.get(before[0], before[0])
  finally:
    gc.set_threshold(*thresholds)
