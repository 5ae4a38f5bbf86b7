"""Lists of rows of pools whose ids repeat or are missing, in every format."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.data.files import id_list
from mllm_selector_jax.data.pool import pool_export
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.inputs.lists import read_references
from mllm_selector_jax.inputs.references import find_rows, list_rows
from mllm_selector_jax.types import InputError
from tests.data import formats_on_the_spot
from tests.data.pools_on_the_spot import talk, write_images
from tests.data.test_formats import check_file

QUESTIONS = ("is it large?", "is it red?", "how many are there?")
KEPT = [0, 2, 4, 5, 9, 12, 13]
NAMELESS = ("llava", "lines", "parquet", "tar", "array_record", "mixture")


def make_records(named=True):
  """Four images of three questions each, as LLaVA's 665K: the id is the image's."""
  records = []
  for image in range(4):
    for place in range(3):
      # Each question has the same answer for each two images.
      turns = talk(f"<image>\n{QUESTIONS[place]}", f"answer {image // 2}")
      name = f"a/{image}.png" if image % 2 else f"b/{image}.png"
      records.append({"id": f"{image:012d}", "image": name, "conversations": turns})
  # Text alone, and rows 4 and 12 once more.
  records.append({"id": "000000000001", "conversations": talk("a color?", "red")})
  records += [dict(records[4]), dict(records[12])]
  if not named:
    for record in records:
      del record["id"]
  return records


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp("references")
  write_images(folder / "images", *(f"{'ba'[n % 2]}/{n}.png" for n in range(4)))
  for named in (True, False):
    (folder / str(named)).mkdir()
  return folder


def open_pool(place, name, named=True):
  folder = place / str(named)
  out = folder / f"{name}.table"
  if not out.exists():
    path = formats_on_the_spot.write_pool(
      name, make_records(named), place / "images", folder
    )
    check_file(path, place / "images", out, duplicate_ids="keep")
  pool = read_table(out)
  assert pool.ok.all()
  return pool


def find(pool, value):
  return find_rows(pool, read_references(value, "--ids"), "--ids")


def write_selected(path, pool, rows):
  """As the select stage does."""
  path.write_bytes(b"[\n" + b",\n".join(pool.text(row) for row in rows) + b"\n]\n")
  return str(path)


def check_rows(pool, found, rows):
  """The very rows, but for which of two exact copies it is."""
  assert len(found.rows) == len(rows) and found.repeated == 0
  assert sorted(pool.hash[found.rows]) == sorted(pool.hash[rows])


# An object of records by their ids has each id once.
REPEATING = [name for name in formats_on_the_spot.WRITERS if name != "by id"]


@pytest.mark.parametrize("name", REPEATING)
def test_selected_records_are_as_many_rows(place, tmp_path, name):
  pool = open_pool(place, name)
  path = write_selected(tmp_path / "selected.json", pool, KEPT)
  check_rows(pool, find(pool, path), KEPT)
  assert find(pool, path).notes == ()
  every = list(range(len(pool)))
  check_rows(
    pool, find(pool, write_selected(tmp_path / "all.json", pool, every)), every
  )


@pytest.mark.parametrize("name", NAMELESS)
def test_records_without_ids_are_as_many_rows(place, tmp_path, name):
  pool = open_pool(place, name, named=False)
  path = write_selected(tmp_path / "selected.json", pool, KEPT)
  check_rows(pool, find(pool, path), KEPT)
  assert find(pool, path).notes == ()


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", ["llava", "parquet", "tar"])
@pytest.mark.parametrize("form", list(pool_export.EXPORTS))
def test_what_is_exported_names_its_rows(place, tmp_path, name, named, form):
  pool = open_pool(place, name, named)
  images = tmp_path / "images"
  kept = pool_export.Kept(pool, KEPT, str(place / "images"), images, images)
  (tmp_path / form).mkdir()
  pool_export.EXPORTS[form](kept, tmp_path / form)
  path = next(
    path for path in (tmp_path / form).iterdir() if path.name != "dataset_info.json"
  )
  found = find(pool, str(path))
  check_rows(pool, found, KEPT)
  assert found.notes == () and found.entries == len(KEPT)
  if form == "ids":
    assert found.rows.tolist() == KEPT


def test_a_selection_of_another_row_order_is_found_by_hash(place, tmp_path):
  pool = open_pool(place, "llava")
  lines = [id_list.Line(pool.id[row], row, pool.hash[row]) for row in KEPT]
  id_list.write_lines(tmp_path / "ids.txt", lines)
  order = np.random.default_rng(0).permutation(len(pool))
  records = make_records()
  (tmp_path / "p.json").write_text(json.dumps([records[row] for row in order]))
  _, other = check_file(
    str(tmp_path / "p.json"), place / "images", tmp_path / "t", duplicate_ids="keep"
  )
  found = find(other, str(tmp_path / "ids.txt"))
  assert sorted(other.hash[found.rows]) == sorted(pool.hash[KEPT])
  assert len(found.rows) == len(KEPT) and "rows has changed: 7" in found.notes[0]
  columns = {"row": KEPT, "hash": pool.hash[KEPT].tolist()}
  pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
  again = find(other, str(tmp_path / "rows.parquet"))
  assert sorted(other.hash[again.rows]) == sorted(pool.hash[KEPT])


def test_parquet_and_json_of_rows(place, tmp_path):
  pool = open_pool(place, "llava")
  rows = {"row": list(range(len(pool))), "id": pool.id.tolist()}
  kept = [row in KEPT for row in rows["row"]]
  for columns in (
    {**rows, "kept": kept},
    {"row": KEPT},
    {"row": KEPT, "id": pool.id[KEPT].tolist()},
    {"row": rows["row"], "hash": pool.hash.tolist(), "kept": kept},
  ):
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "list.parquet")
    assert find(pool, str(tmp_path / "list.parquet")).rows.tolist() == KEPT
    entries = [each for each in table.to_pylist() if each.pop("kept", True)]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    assert find(pool, str(tmp_path / "list.json")).rows.tolist() == KEPT
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    (tmp_path / "list.jsonl").write_text(text)
    assert find(pool, str(tmp_path / "list.jsonl")).rows.tolist() == KEPT


def test_a_bare_id_takes_all_its_rows_and_says_so(place, tmp_path):
  pool = open_pool(place, "llava")
  path = tmp_path / "ids.txt"
  path.write_text("000000000001\n000000000003\n000000000001\n")
  found = find(pool, str(path))
  assert found.rows.tolist() == [3, 4, 5, 9, 10, 11, 12, 13, 14]
  assert (found.entries, found.repeated) == (3, 1)
  (note,) = found.notes
  assert "ids that several rows share: 2; all of their 9 rows are taken" in note
  assert "row numbers or hashes beside the ids, as exports/ids/ids.txt" in note
  found = find(pool, f"hash={pool.hash[4]}")
  assert found.rows.tolist() == [4, 13]
  assert "hashes of several equal rows: 1; all of their 2 rows" in found.notes[0]
  # Rows that were set aside do not count where others of the id can be used.
  rows = [
    {**r, "image": "no.png"} if n == 3 else r for n, r in enumerate(make_records())
  ]
  (tmp_path / "p.json").write_text(json.dumps(rows))
  _, other = check_file(
    str(tmp_path / "p.json"), place / "images", tmp_path / "t", duplicate_ids="keep"
  )
  assert find(other, "000000000001").rows.tolist() == [4, 5, 12, 13, 14]
  assert list_rows(other, read_references("000000000001", ""), "--id")[0].tolist() == [
    3, 4, 5, 12, 13, 14,
  ]  # fmt: skip
  assert find(other, "row=3").rows.tolist() == [3]


def test_texts_of_the_config(tmp_path):
  names = ["a", "a,b", "row=2", "coco/1", "c, d", "a", ' "q"', "", ""]
  records = [
    {"id": name, "conversations": talk(f"what is {row}?", "red")}
    for row, name in enumerate(names)
  ]
  (tmp_path / "p.json").write_text(json.dumps(records))
  _, pool = check_file(
    str(tmp_path / "p.json"), None, tmp_path / "t", duplicate_ids="keep"
  )
  for value, rows in {
    "a,b": [1],
    "a,coco/1": [0, 3, 5],
    "row=2": [2],
    "row=4,row=0": [0, 4],
    f"hash={pool.hash[5]}, row=0": [0, 5],
    '"a,b",coco/1': [1, 3],
    "coco/1": [3],
    "c, d": [4],
    ' "q"': [6],
  }.items():
    assert find(pool, value).rows.tolist() == rows, value
    if "," not in value:
      assert find(pool, [value]).rows.tolist() == rows
  assert find(pool, ["a,b", "c, d", "", "row=0"]).rows.tolist() == [0, 1, 4, 7, 8]
  with pytest.raises(InputError, match="no row of the pool has the id 'a,coco/1'"):
    find(pool, ["a,coco/1"])
  for value, words in {
    "runs/x": "has the id 'runs/x', and there is no such file",
    "x.json": "there is no such file",
    "a,x,y": "2 of the 3 ids: 'x', 'y';",
    "row=9": r"entry 0 \(row 9\) is no row of the pool, which has 9 rows",
    "hash=ff": r"entry 0 \(hash 'ff'\) is no row of the pool",
    ",".join(f"n{n}" for n in range(999)): "999 of the 999 ids: .*, ...;",
    "\ud800": "no row of the pool has the id",
  }.items():
    with pytest.raises(InputError, match=words):
      find(pool, value)
  (tmp_path / "plain.txt").write_text("a,b\n c, d\r\nrow=0\n")
  assert find(pool, str(tmp_path / "plain.txt")).rows.tolist() == [0, 1, 4]


def test_what_does_not_fit_the_pool(place, tmp_path):
  pool = open_pool(place, "llava")

  def at(*entries):
    (tmp_path / "list.json").write_text(json.dumps(entries))
    return find(pool, str(tmp_path / "list.json"))

  gone = "0" * 32
  found = at({"id": "000000000001", "row": 4, "hash": gone})
  assert (
    found.rows.tolist() == [4] and "no row of the pool has their hash" in found.notes[0]
  )
  found = at({"id": "000000000001", "hash": gone})
  assert found.rows.tolist() == [3, 4, 5, 12, 13, 14] and len(found.notes) == 2
  assert at({"row": 3, "hash": pool.hash[9]}).rows.tolist() == [9]
  assert at({"id": "x", "row": 9, "hash": pool.hash[9]}).rows.tolist() == [9]
  # A whole record's own field of that name is not ours.
  assert at({**make_records()[7], "row": 1, "hash": "ff"}).rows.tolist() == [7]
  for entry, words in (
    ({"id": "000000000001", "row": 0}, "whose row 0 has the id '000000000000'"),
    ({"row": 4, "hash": gone}, r"entry 1 \(row 4, hash '0+'\) is no row of the pool"),
    ({"id": "a", "row": 10**30}, "which has 15 rows"),
    ({"id": "a", "row": -1}, "which has 15 rows"),
    ({"id": None}, "entry 1 has no id"),
    ({"id": "none", "hash": gone}, "2 ids: 'none'"),
  ):
    with pytest.raises(InputError, match=words):
      at({"id": "000000000002", "row": 6}, entry)
  with pytest.raises(
    InputError, match="the conversation of 1 of its records, which have"
  ):
    at({"conversations": talk("of another pool?", "yes")})


def test_doubts_are_told(place, tmp_path):
  """Rows of one text whose images have no name that a record could show."""
  rows = []
  for record in make_records(named=False)[:12]:
    data = (place / "images" / record.pop("image")).read_bytes()
    rows.append({**record, "image": data})
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
  _, pool = check_file(str(tmp_path / "p.parquet"), place / "images", tmp_path / "t")
  assert pool.ok.all()
  # Rows 0 and 3 have one text, and so have 6 and 9.
  path = write_selected(tmp_path / "selected.json", pool, [0, 3, 9])
  found = find(pool, path)
  assert found.rows.tolist() == [0, 3, 6]
  assert "records that match several rows" in found.notes[0]
  named = open_pool(place, "llava")
  record = {**make_records()[4], "image": "elsewhere/x.jpg"}
  (tmp_path / "renamed.json").write_text(json.dumps([record]))
  found = find(named, str(tmp_path / "renamed.json"))
  assert found.rows.tolist() == [4] and "only by their text" in found.notes[0]
  record["conversations"] = talk("of another pool?", "yes")
  (tmp_path / "renamed.json").write_text(json.dumps([record]))
  found = find(named, str(tmp_path / "renamed.json"))
  assert (
    found.rows.tolist() == [3, 4, 5, 12, 13, 14]
    and "several rows share: 1;" in found.notes[0]
  )
