"""Every format of a pool gives the same rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.data import formats, record_schemas
from mllm_selector_jax.data.files import mixture
from mllm_selector_jax.data.formats.arrow_file import ArrowFile
from mllm_selector_jax.data.formats.json_file import JsonFile
from mllm_selector_jax.data.pool import pool_check
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.types import InputError
from tests.data import formats_on_the_spot
from tests.data.pools_on_the_spot import (
  make_encoder,
  make_record,
  talk,
  write_images,
  write_records,
)

SAME = (
  "id", "hash", "image_hashes", "pixels", "sizes", "turns", "tokens", "supervised",
  "prefix_keys", "status", "reason", "truncated",
)  # fmt: skip
NAMES = sorted(formats_on_the_spot.WRITERS)


def make_records() -> list[dict]:
  pictures = ("a/1.png", "a/2.png", None, "b/1.png")
  records = [make_record(n, pictures[n % 4]) for n in range(11)]
  records[4]["conversations"] += talk("and é?", "yes\n")
  return records


def check_file(path: str, folder, out, **options):
  data = [path]
  encoder = make_encoder()
  folder = folder and str(folder)
  found = pool_check.check_pool(data, folder, encoder, 10_000, out, **options)
  return found, read_table(out)


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
  """The pool in every format, and the table of each."""
  place = tmp_path_factory.mktemp("pools")
  write_images(place / "images", "a/1.png", "a/2.png", "b/1.png")
  found = {}
  for name in NAMES:
    path = formats_on_the_spot.write_pool(name, make_records(), place / "images", place)
    table = place / f"{name}.table"
    found[name] = path, check_file(path, place / "images", table)[1]
  return found


@pytest.mark.parametrize("name", NAMES)
def test_the_same_rows_with_the_same_hashes(pools, name):
  llava, table = pools["llava"][1], pools[name][1]
  assert llava.ok.all() and len(llava) == 11
  for column in SAME:
    assert list(getattr(table, column)) == list(getattr(llava, column)), column


@pytest.mark.parametrize("name", NAMES)
def test_a_row_at_random_is_the_one_of_the_stream(pools, name):
  path, table = pools[name]
  records = [
    record
    for part in mixture.expand([path])
    for record in formats.open_file(part.file).records()
  ]
  wanted = make_records()
  for row in np.random.default_rng(0).permutation(len(table)).tolist():
    assert table.record(row) == records[row]
    content = record_schemas.read_content(table.record(row))
    assert content.conversations == wanted[row]["conversations"]
    assert len(content.pictures) == ("image" in wanted[row])
    if name != "by id":
      assert json.loads(table.text(row))["id"] == wanted[row]["id"]


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_holds_the_records_as_they_were(pools, name, tmp_path):
  path = mixture.expand([pools[name][0]])[-1].file
  file = formats.open_file(path)
  records = list(file.records())[1::2]
  out = tmp_path / "copy"
  file.copy([(record.offset, record.length) for record in records], out)
  if name == "tfds":
    out = tmp_path / "pool-train.array_record-00000-of-00001"
    (tmp_path / "copy").rename(out)
    formats_on_the_spot.write_features(tmp_path, file._features)
  again = formats.open_file(str(out))
  assert type(again) is type(file)
  plain = {"offset": 0, "length": 0}
  assert [r._replace(**plain) for r in again.records()] == [
    r._replace(**plain) for r in records
  ]


@pytest.mark.parametrize("name", ["saved", "arrow", "feather"])
def test_arrow_is_mapped_and_found_whole(pools, name):
  path = mixture.expand([pools[name][0]])[0].file
  file = formats.open_file(path)
  assert type(file) is ArrowFile and file.count() == 11
  with pytest.raises(InputError, match="no row 11"):
    file.read(11, 1)
  assert list(file.image_names()) == [
    record["image"] for record in make_records() if "image" in record
  ]


def test_arrow_that_is_broken(pools, tmp_path):
  data = Path(pools["arrow"][0]).read_bytes()
  path = tmp_path / "pool.arrow"
  offsets = data.index(b"id-0id-1") - 64  # of the ids, before their text
  for broken, told in (
    (data[: len(data) // 2], "complete Arrow"),
    (data[:offsets] + b"\x7f" * 40 + data[offsets + 40 :], "damaged"),
  ):
    path.write_bytes(broken)
    with pytest.raises(InputError, match=told):
      list(formats.open_file(str(path)).records())


@pytest.mark.parametrize(
  ("data", "told"),
  [
    (b"", "is empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1030\n",
     "Git LFS pointer.*1,030 bytes.*git lfs pull"),
    (b"<!DOCTYPE html><html>404", "an HTML or XML page"),
    (b"\n<?xml version='1.0'?><Error>AccessDenied</Error>", "an HTML or XML page"),
    (b"PK\x03\x04....", "compressed with zip"), (b"\xfd7zXZ\0", "compressed with xz"),
    (b"\x80\x04\x95" + bytes(20), "a pickle"),
  ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.json", "a.parquet", "a.tar", "a.arrow"])
def test_what_stands_for_a_file_is_named(tmp_path, name, data, told):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(InputError, match=told):
    formats.open_file(str(tmp_path / name))


def test_a_pointer_in_place_of_an_image(tmp_path):
  (tmp_path / "a.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
  pool = write_records(tmp_path / "p.json", [make_record(0, "a.png"), make_record(1)])
  _, table = check_file(pool, tmp_path, tmp_path / "out.parquet")
  assert table.reason[0] == "unsupported image" and "Git LFS" in table.detail[0]


@pytest.mark.parametrize("name", ["lines", "tar", "array_record", "parquet"])
def test_no_number_elsewhere_costs_no_row(tmp_path, name):
  records = [make_record(n, clip=float("nan"), more=[1e999]) for n in range(3)]
  path = formats_on_the_spot.write_pool(name, records, tmp_path, tmp_path)
  _, table = check_file(path, None, tmp_path / "out.parquet")
  assert table.ok.all()

  def refuse(word):
    raise AssertionError(word)

  for row in range(3):
    value = json.loads(table.text(row), parse_constant=refuse)
    assert (value["clip"], value["more"]) == (None, [None])


def test_what_is_no_known_format_is_read_as_json(tmp_path):
  path = tmp_path / "pool.bin"
  path.write_bytes(b"\x89PNG and so on")
  assert type(formats.open_file(str(path))) is JsonFile


@pytest.mark.parametrize("name", ["parquet", "tar", "tfds", "parquet texts", "arrow"])
def test_images_inside_go_through_the_same_checks(tmp_path, name):
  folder = tmp_path / "images"
  names = ["good.png", "empty.png", "cut.png", "video.mp4", "wide.png"]
  write_images(folder, "good.png")
  whole = (folder / "good.png").read_bytes()
  (folder / "empty.png").write_bytes(b"")
  (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
  (folder / "video.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 40)

  Image.new("L", (101, 100)).save(folder / "wide.png")
  records = [make_record(n, image) for n, image in enumerate(names)]
  path = formats_on_the_spot.write_pool(name, records, folder, tmp_path)
  _, table = check_file(path, folder, tmp_path / "out.parquet")
  assert table.reason.tolist() == [
    None,
    # TFDS has no image that is not there: empty bytes stand for it.
    "image marks" if name == "tfds" else "unreadable image",
    "unreadable image",
    "unsupported image",
    "huge image",
  ]


@pytest.mark.parametrize("name", ["messages", "parquet messages", "tar", "tfds"])
def test_several_images_are_taken_unless_marks_differ_or_there_are_too_many(
  tmp_path, name
):
  folder = tmp_path / "images"
  write_images(folder, "1.png")
  records = [make_record(n, "1.png") for n in range(3)]
  records[1]["conversations"][0]["value"] = "<image><image>\nwhich?"
  path = formats_on_the_spot.write_pool(name, records, folder, tmp_path)
  _, table = check_file(path, folder, tmp_path / "out.parquet")
  assert table.reason.tolist() == [None, "image marks", None]
  two = {**make_record(0), "images": ["1.png", "1.png"]}
  (tmp_path / "two.json").write_text(json.dumps([two, make_record(1)]))
  given = str(tmp_path / "two.json"), folder, tmp_path / "out.parquet"
  _, table = check_file(*given)
  assert table.ok.all() and table.image_tokens.tolist() == [2 * 4, 0]
  _, table = check_file(*given, max_images=1)
  assert table.reason.tolist() == ["too many images", None]
