"""A prepared pool holds every row, and is read by other libraries."""

import json
import subprocess
import sys

import grain
import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.data.formats import tf_example
from mllm_selector_jax.data.pool import prepared_pool
from mllm_selector_jax.types import InputError
from tests.data import formats_on_the_spot
from tests.data.pools_on_the_spot import make_record, write_images
from tests.data.several_images import see
from tests.data.test_formats import check_file

SAME = (
  "id", "hash", "source", "images", "image_hashes", "pixels", "turns", "tokens",
  "supervised", "prefix_keys", "status", "reason", "truncated",
)  # fmt: skip


def make_records() -> list:
  return [
    make_record(0, "a/1.png", source="mine"),
    make_record(1),
    make_record(2, "a/none.png"),
    "no record",
    {**make_record(4, "a/2.png"), "id": None},
    {"id": "no turns"},
    make_record(0),
    make_record(7, "cut.png"),
    make_record(8, "../a/1.png"),
    {**make_record(9), "image": ["a/1.png", "a/2.png"]},
    make_record(10, "a/1.png", note="é"),
  ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  place = tmp_path_factory.mktemp("pool")
  write_images(place / "images", "a/1.png", "a/2.png", "cut.png")
  cut = place / "images/cut.png"
  cut.write_bytes(cut.read_bytes()[:60])
  return place


def prepare_file(path, folder, out, workers=1, shard_rows=4):
  """The pool's table before, and the data set's folder."""
  _, table = check_file(path, folder / "images", out / "pool.table")
  made = out / "made"
  made.mkdir(exist_ok=True)
  calls = []
  prepared_pool.write_shards(
    out / "pool.table", str(folder / "images"), made, shard_rows, workers,
    lambda *a: calls.append(a),
  )  # fmt: skip
  prepared_pool.write_description(made, len(table), shard_rows)
  assert calls[-1] == (len(table), len(table))
  return table, made


def test_all_rows_come_out_as_they_went_in(folder, tmp_path):
  path = tmp_path / "pool.json"
  path.write_text(json.dumps(make_records()))
  before, made = prepare_file(str(path), folder, tmp_path)
  assert set(before.reason) - {None} == {
    "missing image", "malformed", "unreadable image", "unsafe path",
  }  # fmt: skip
  _, after = check_file(str(made), tmp_path / "no_images", tmp_path / "again.table")
  for column in SAME:
    assert list(getattr(after, column)) == list(getattr(before, column)), column
  assert sorted(file.name for file in made.iterdir())[-3:] == [
    f"pool-train.array_record-0000{n}-of-00003" for n in range(3)
  ]
  assert [json.loads(after.text(row)) for row in (0, 10)] == [
    make_records()[row] for row in (0, 10)
  ]


def test_a_row_that_lacks_one_of_several_images_says_which(folder, tmp_path):
  records = [
    see(0, "a/1.png", "a/none.png", "a/2.png"),
    see(1, "a/1.png", "a/2.png", "cut.png"),
    see(2, "../a/1.png", "a/1.png", "a/2.png"),
    make_record(3, "a/none.png"),
    see(4, "a/2.png", "a/1.png", "a/2.png"),
  ]
  path = tmp_path / "pool.json"
  path.write_text(json.dumps(records))
  before, made = prepare_file(str(path), folder, tmp_path)
  _, after = check_file(str(made), tmp_path / "no_images", tmp_path / "again.table")
  assert list(after.reason) == list(before.reason) == [
    "missing image", "unreadable image", "unsafe path", "missing image", None,
  ]  # fmt: skip
  assert list(after.detail) == list(before.detail)
  for row, number in enumerate((2, 3, 1)):
    assert after.detail[row].startswith(f"image {number} of 3: ")
  assert " of " not in after.detail[3]


@pytest.mark.parametrize("name", sorted(formats_on_the_spot.WRITERS))
def test_of_every_format(folder, tmp_path, name):
  images = folder / "images"
  records = [make_record(n, f"a/{n % 2 + 1}.png" if n % 3 else None) for n in range(6)]
  path = formats_on_the_spot.write_pool(name, records, images, tmp_path)
  before, made = prepare_file(path, folder, tmp_path)
  _, after = check_file(str(made), tmp_path / "no_images", tmp_path / "again.table")
  assert before.ok.all()
  for column in SAME:
    assert list(getattr(after, column)) == list(getattr(before, column)), column


def test_grain_reads_it(folder, tmp_path):
  records = [make_record(n, "a/1.png" if n % 2 else None) for n in range(9)]
  path = formats_on_the_spot.write_json(records, folder, tmp_path / "pool.json")
  _, made = prepare_file(path, folder, tmp_path)
  files = sorted(map(str, made.glob("*.array_record*")))
  source = grain.sources.ArrayRecordDataSource(files)
  data = grain.MapDataset.source(source).seed(0).shuffle().map(tf_example.decode)
  items = [data[n] for n in range(9)]
  found = {json.loads(item["record"][0])["id"]: item["images"] for item in items}
  image = (folder / "images/a/1.png").read_bytes()
  assert found == {f"id-{n}": [image] * (n % 2) for n in range(9)}


def test_tfds_reads_it(folder, tmp_path):
  tfds = pytest.importorskip("tensorflow_datasets")
  pytest.importorskip("importlib_resources")
  records = [make_record(n, "a/1.png" if n % 2 else None) for n in range(9)]
  path = formats_on_the_spot.write_json(records, folder, tmp_path / "pool.json")
  _, made = prepare_file(path, folder, tmp_path)
  builder = tfds.builder_from_directory(made)
  source = builder.as_data_source("train")
  assert len(source) == 9
  pixels = np.asarray(Image.open(folder / "images/a/1.png"))
  for number, record in enumerate(records):
    assert json.loads(source[number]["record"]) == record
    found = source[number]["images"]
    assert len(found) == number % 2
    for image in found:
      np.testing.assert_array_equal(image, pixels)


def test_processes_and_restarts_give_the_same_bytes(folder, tmp_path):
  records = [make_record(n, "a/1.png") for n in range(12)]
  path = formats_on_the_spot.write_json(records, folder, tmp_path / "pool.json")
  _, made = prepare_file(path, folder, tmp_path)
  files = sorted(made.glob("*.array_record*"))
  wanted = {file.name: file.read_bytes() for file in files}
  files[1].unlink()
  kept = files[0].stat().st_mtime_ns
  prepare_file(path, folder, tmp_path)
  assert files[0].stat().st_mtime_ns == kept
  assert {file.name: file.read_bytes() for file in files} == wanted
  script = (
    "import pathlib, sys\n"
    "from mllm_selector_jax.data.pool import prepared_pool\n"
    "table, images, out = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])\n"
    "prepared_pool.write_shards(table, images, out, 4, 2, lambda *_: None)"
  )
  places = [tmp_path / "pool.table", folder / "images", tmp_path]
  subprocess.run([sys.executable, "-c", script, *map(str, places)], check=True)
  again = sorted(tmp_path.glob("*.array_record*"))
  assert {file.name: file.read_bytes() for file in again} == wanted


def test_an_image_that_is_gone_is_told(folder, tmp_path):
  write_images(tmp_path / "images", "1.png")
  path = formats_on_the_spot.write_json(
    [make_record(0, "1.png")], folder, tmp_path / "pool.json"
  )
  check_file(path, tmp_path / "images", tmp_path / "pool.table")
  (tmp_path / "images/1.png").unlink()
  with pytest.raises(InputError, match="changed since the pool was checked"):
    prepared_pool.write_shards(
      tmp_path / "pool.table", str(tmp_path / "images"), tmp_path, 4, 1, lambda *a: None
    )
  assert not list(tmp_path.glob(".*")) + list(tmp_path.glob("*.array_record*"))
