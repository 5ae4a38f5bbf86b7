"""Every form of a record, exported in every format, comes back as the same row."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.data.pool import pool_check, pool_export, pool_summary
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.types import MARK
from tests.data import formats_on_the_spot
from tests.data.pools_on_the_spot import make_encoder, write_images
from tests.data.record_schemas.test_record_schemas import FORMS, ROLES, SYSTEM, TALK

FILES = {
  "llava": "selected.json",
  "llama_factory": "selected.json",
  "ms_swift": "selected.jsonl",
  "trl": "selected.parquet",
  "verbatim": "",
}
MORE = {"role": "user", "content": "And now?"}
LATER = {"role": "assistant", "content": "Two\nof them. "}
ODD = {
  "system turn": {"image": "a.png", "conversations": [SYSTEM, *TALK]},
  "system field": {"image": "a.png", "system": "Be brief.", "conversations": TALK},
  "masked": {
    "images": ["a.png"],
    "messages": [*ROLES[:1], ROLES[1] | {"loss": False}, MORE, LATER | {"loss": True}],
  },
  "mark inside": {
    "images": ["a.png"],
    "messages": [{"role": "user", "content": f"Look at {MARK} and count."}, ROLES[1]],
  },
  "mark last": {
    "images": ["a.png"],
    "messages": [{"role": "user", "content": f"Count.\n{MARK}"}, ROLES[1]],
  },
  "later image": {"images": ["a.png"], "messages": [MORE, LATER, *ROLES]},
  "each question": {"images": ["a.png"], "messages": [*ROLES, *ROLES]},
  "answer first": {"image": "a.png", "conversations": [TALK[1], *TALK]},
  "question last": {
    "image": "a.png",
    "conversations": [*TALK, {"from": "human", "value": "And?"}],
  },
  "text with a mark": {"question": "How?", "answer": f"By the {MARK} tag."},
  "fields": {
    "id": 7, "image": "a.png", "conversations": TALK, "tools": "[]",
    "clip": float("nan"), "note": None,
    "objects": {"ref": ["disc"], "bbox": [[1, 2, 3, 4]]},
  },
  "objects": {
    "images": ["a.png"],
    "messages": [
      {"role": "system", "content": "Look for a <ref-object>."},
      {"role": "user", "content": "<image>Where is the <ref-object>?"},
      {"role": "assistant", "content": '{"bbox_2d": <bbox>, "point_2d": <bbox>}'},
    ],
    "objects": {"ref": ["disc", "star"], "bbox": [[1, 2.5, 3, 4], [5, 6]]},
  },
  "objects of two images": {
    "images": ["a.png", "b/2.png"],
    "query": f"{MARK}\n{MARK}\nWhere is <ref-object>?",
    "response": "<bbox> and <bbox>",
    "objects": {
      "ref": ["it"], "bbox": [[0.25, 0.5], [0, 0, 1, 1]], "bbox_type": "norm1",
      "image_id": [1, 0],
    },
  },
  "objects as text": {
    "image": "a.png",
    "conversations": [TALK[0], {"from": "gpt", "value": "<bbox>"}],
    "objects": '{"ref": [], "bbox": [[1, 2, 3, 4]]}',
  },
  "objects of ms-swift 2": {
    "images": ["a.png"],
    "query": "Find <bbox>",
    "response": "<ref-object>",
    "objects": [{"caption": "a disc", "bbox": [1, 2, 3, 4], "bbox_type": "real"}],
  },
  "turn fields": {
    "image": "a.png",
    "conversations": [TALK[0], TALK[1] | {"weight": 0.5, "who": "x"}],
  },
  "same id": {"id": 7, "image": "b/2.png", "conversations": TALK},
  "same id again": {"id": 7, "image": "b/2.png", "conversations": TALK},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp("round_trip")
  write_images(folder / "images", "a.png", "b/2.png")
  return folder


def check_rows(path, images, out):
  found = pool_check.check_pool(
    [str(path)], images, make_encoder(), 10_000, out, splits="all"
  )
  table = read_table(out)
  assert table.ok.all(), list(zip(table.reason, table.detail, strict=True))
  return found, table


def export_all(table, images, name, out):
  """The export's file or folder, the folders of its images, and what is told."""
  kept = pool_export.Kept(
    table, list(range(len(table))), images, out / "images", out / "images"
  )
  folder = out / name
  folder.mkdir()
  pool_export.EXPORTS[name](kept, folder)
  return folder / FILES[name], [kept.images, images], kept.ignored


def write_lines(values, path):
  path.write_text("".join(json.dumps(value) + "\n" for value in values))
  return path


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("form", [*FORMS, *ODD])
def test_every_form_from_jsonl(place, tmp_path, name, form):
  value = FORMS.get(form) or ODD[form]
  path = write_lines([value], tmp_path / "pool.jsonl")
  images = place / "images"
  _, table = check_rows(path, images, tmp_path / "pool.table")
  written, folders, _ = export_all(table, images, name, tmp_path)
  _, again = check_rows(written, folders, tmp_path / "again.table")
  assert list(again.hash) == list(table.hash)
  for column in ("turns", "tokens", "supervised"):
    assert list(getattr(again, column)) == list(getattr(table, column))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", sorted(formats_on_the_spot.WRITERS))
def test_every_format(place, tmp_path, name, kind):
  records = [
    {"id": "1", "image": "a.png", "conversations": TALK},
    {"id": "2", "conversations": [{**TALK[0], "value": "What?"}, TALK[1]]},
    {"id": "1", "image": "b/2.png", "conversations": TALK},
    {"id": "1", "image": "b/2.png", "conversations": TALK},
  ]
  images = place / "images"
  path = formats_on_the_spot.write_pool(kind, records, images, tmp_path)
  _, table = check_rows(path, images, tmp_path / "pool.table")
  written, folders, _ = export_all(table, images, name, tmp_path)
  _, again = check_rows(written, folders, tmp_path / "again.table")
  assert sorted(again.hash) == sorted(table.hash)
  if kind != "mixture":  # whose files are exported apart
    assert list(again.hash) == list(table.hash)


@pytest.mark.parametrize("name", FILES)
def test_images_in_base64_and_of_several_folders(place, tmp_path, name):
  import base64

  write_images(tmp_path / "more", "x.png", "c.png", "a.png")
  text = base64.b64encode((place / "images/a.png").read_bytes()).decode()
  first = {"image": f"data:image/png;base64,{text}", "conversations": TALK}
  values = [first, {"image": "c.png", "conversations": TALK}]
  values.append({"image": str(tmp_path / "more/a.png"), "conversations": TALK})
  images = [str(place / "images"), str(tmp_path / "more")]
  for number, rows in enumerate((values, values[1:])):
    out = tmp_path / str(number)
    out.mkdir()
    path = write_lines(rows, out / "pool.jsonl")
    _, table = check_rows(path, images, out / "pool.table")
    assert len(set(table.hash)) == len(rows)
    written, folders, _ = export_all(table, images, name, out)
    folders = [str(folders[0]), *images]
    _, again = check_rows(written, folders, out / "again.table")
    assert list(again.hash) == list(table.hash)


def test_no_field_is_lost_and_what_a_trainer_ignores_is_counted(place, tmp_path):
  path = write_lines(ODD.values(), tmp_path / "pool.jsonl")
  images = place / "images"
  found, table = check_rows(path, images, tmp_path / "pool.table")
  row = list(ODD).index("fields")
  wanted = {"tools": "[]", "objects": ODD["fields"]["objects"], "clip": None}
  told = {}
  for name in ("llava", "llama_factory", "ms_swift", "trl"):
    written, _, told[name] = export_all(table, images, name, tmp_path)
    if name == "trl":
      value = pq.read_table(written).to_pylist()[row]
      assert value["id"] == "7"
      value = json.loads(value["other_fields"])
    else:
      text = written.read_text()
      rows = text.splitlines() if name == "ms_swift" else None
      value = json.loads(rows[row]) if rows else json.loads(text)[row]
      assert value["id"] == 7
    assert {key: value[key] for key in wanted} == wanted
    assert value["note"] is None
  assert told["llava"] == {
    "the field tools": 1, "the field objects": 5,
    "the field conversations.weight": 1, "the field conversations.who": 1,
    "the row's own system text": 3, "that an answer is not to be learned": 1,
  }  # fmt: skip
  assert "the row's own system text" not in told["llama_factory"]
  assert told["ms_swift"] == {
    "the field conversations.weight": 1, "the field conversations.who": 1,
  }  # fmt: skip
  assert found["remarks"]["not read: objects"] == 1
  assert found["remarks"][pool_summary.GROUNDED] == 4


def test_a_parquet_pool_keeps_its_further_columns(place, tmp_path):
  data = (place / "images/a.png").read_bytes()
  rows = [{"image": {"bytes": data}, "conversations": TALK, "score": 0.5, "n": 3}]
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
  _, table = check_rows(tmp_path / "pool.parquet", None, tmp_path / "pool.table")
  written, _, _ = export_all(table, None, "llava", tmp_path)
  (value,) = json.loads(written.read_text())
  assert (value["score"], value["n"]) == (0.5, 3)
