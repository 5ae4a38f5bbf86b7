"""A selection in every form that is written, read by the library it is for."""

import json

import pytest

from mllm_selector_jax.data import formats, record_schemas
from mllm_selector_jax.data.files import id_list, mixture
from mllm_selector_jax.data.pool import pool_export
from tests.data import formats_on_the_spot
from tests.data.pools_on_the_spot import make_record, talk, write_images
from tests.data.test_formats import check_file

KEPT = [0, 1, 3, 4, 6]
INSIDE = ("parquet", "parquet texts", "tar", "tfds", "mixture")


def make_records() -> list[dict]:
  records = [make_record(n, f"a/{n % 2}.png" if n % 4 else None) for n in range(8)]
  records[3]["conversations"] += talk("and é?", "two\nlines")
  return records


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp("export")
  write_images(folder / "images", "a/0.png", "a/1.png")
  return folder


def open_kept(place, name, out) -> pool_export.Kept:
  data = place / name.replace(" ", "_")
  data.mkdir(exist_ok=True)
  path = data / "done"
  if not path.exists():
    path.write_text(
      formats_on_the_spot.write_pool(name, make_records(), place / "images", data)
    )
  _, table = check_file(path.read_text(), place / "images", out / "pool.table")
  assert table.ok.all()
  folder = str(place / "images")
  return pool_export.Kept(table, KEPT, folder, out / "images", out / "images")


def run(name, kept, out):
  folder = out / name
  folder.mkdir()
  pool_export.EXPORTS[name](kept, folder)
  return folder


@pytest.fixture(params=["llava", *INSIDE])
def kept(request, place, tmp_path):
  return open_kept(place, request.param, tmp_path)


def read_again(path, images, out) -> list:
  """Conversations and image hashes of a pool file that was written."""
  _, table = check_file(str(path), images, out / "again.table")
  assert table.ok.all(), table.detail.tolist()
  return [(table.id[row], table.hash[row]) for row in range(len(table))]


def wanted(kept) -> list:
  return [(kept.pool.id[row], kept.pool.hash[row]) for row in kept.rows]


@pytest.mark.parametrize(
  ("name", "file"),
  [
    ("llava", "selected.json"), ("llama_factory", "selected.json"),
    ("ms_swift", "selected.jsonl"), ("trl", "selected.parquet"),
  ],
)  # fmt: skip
def test_what_is_written_is_read_as_the_same_rows(kept, tmp_path, name, file):
  written = run(name, kept, tmp_path) / file
  if name in ("llama_factory", "ms_swift"):
    # Their paths are absolute, which a pool's may not be.
    written.write_text(written.read_text().replace(f"{kept.images}/", ""))
  assert read_again(written, kept.images, tmp_path) == wanted(kept)


def test_verbatim(kept, tmp_path, place):
  folder = run("verbatim", kept, tmp_path)
  files = sorted(folder.rglob("*.array_record*")) or sorted(folder.rglob("pool_*"))
  found = [
    record for file in files for record in formats.open_file(str(file)).records()
  ]
  assert [record_schemas.read_content(record) for record in found] == [
    record_schemas.read_content(kept.pool.record(row)) for row in kept.rows
  ]
  assert len(read_again(folder, place / "images", tmp_path)) == len(KEPT)


def test_verbatim_files_of_one_name_stay_apart(place, tmp_path):
  parts = []
  for number in range(2):
    (tmp_path / str(number)).mkdir()
    path = tmp_path / f"{number}/p.json"
    parts.append(formats_on_the_spot.write_json(make_records(), place, path))
  assert pool_export._name_files(parts) == {
    parts[0]: "0-0/p.json",
    parts[1]: "1-1/p.json",
  }
  assert pool_export._name_files(parts[:1]) == {parts[0]: "p.json"}


def test_ids(place, tmp_path):
  kept = open_kept(place, "llava", tmp_path)
  path = run("ids", kept, tmp_path) / "ids.txt"
  assert path.read_text().split("\n") == [
    "id\trow\thash",
    *(f"id-{row}\t{row}\t{kept.pool.hash[row]}" for row in KEPT),
    "",
  ]
  assert [line.row for line in id_list.read_lines(path)] == KEPT


@pytest.mark.parametrize("name", ["llama_factory", "ms_swift", "llava", "trl"])
def test_datasets_loads_it(kept, tmp_path, name):
  datasets = pytest.importorskip("datasets")
  folder = run(name, kept, tmp_path)
  (file,) = folder.glob("selected.*")
  kind = "parquet" if name == "trl" else "json"
  data = datasets.load_dataset(
    kind, data_files=str(file), split="train", cache_dir=str(tmp_path / "cache")
  )
  assert data["id"][:] == [f"id-{n}" for n in KEPT]
  if name == "trl":
    assert data[1]["images"][0].size == (7, 9)
    assert [part["type"] for part in data[1]["messages"][0]["content"]] == [
      "image", "text"
    ]  # fmt: skip
    assert data[0]["images"] == []
  elif name != "llava":
    with open(data[1]["images"][0], "rb") as image:
      assert image.read(4) == b"\x89PNG"
  if name == "llama_factory":
    info = json.loads((folder / "dataset_info.json").read_text())["mllm_selected"]
    assert info["formatting"] == "sharegpt" and info["file_name"] == file.name
    assert set(info["columns"].values()) <= set(data.column_names)


def test_datasets_loads_what_is_verbatim(place, tmp_path):
  datasets = pytest.importorskip("datasets")
  # datasets takes no tar whose first samples differ in their members.
  records = [make_record(n, "a/0.png") for n in range(8)]
  for name, kind in (("parquet", "parquet"), ("tar", "webdataset"), ("lines", "json")):
    out = tmp_path / name
    out.mkdir()
    path = formats_on_the_spot.write_pool(name, records, place / "images", out)
    _, table = check_file(path, place / "images", out / "pool.table")
    kept = pool_export.Kept(table, KEPT, str(place / "images"), out, out)
    (file,) = run("verbatim", kept, out).iterdir()
    data = datasets.load_dataset(
      kind, data_files=str(file), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(data) == len(KEPT), name


def test_a_system_turn_is_kept_for_those_who_read_it(tmp_path):
  record = make_record(0)
  record["conversations"].insert(0, {"from": "system", "value": "be brief"})
  path = formats_on_the_spot.write_json([record], tmp_path, tmp_path / "pool.json")
  _, table = check_file(path, None, tmp_path / "pool.table")
  kept = pool_export.Kept(table, [0], None, tmp_path, tmp_path)
  written = run("llama_factory", kept, tmp_path) / "selected.json"
  (row,) = json.loads(written.read_text())
  assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]


def test_mixture_names_every_file(place, tmp_path):
  kept = open_kept(place, "mixture", tmp_path)
  assert len({kept.pool.file[row] for row in kept.rows}) == 2
  assert mixture.expand([str(run("verbatim", kept, tmp_path))])
