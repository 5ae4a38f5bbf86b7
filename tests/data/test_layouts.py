"""How files of JSON hold their records: wrapped, by id, after each other, bare."""

import json

import pytest

from mllm_selector_jax.data.json_text import json_layouts, parsing, records, window
from tests.data.test_records import GOOD, fails, read, values, write

THREE = [{"id": "a", "image": "é", "conversations": []}, {"id": 2, "conversations": []}]
THREE.append({"id": "c", "messages": [{"role": "user", "content": "}]"}]})


def dump(value, indent):
  return json.dumps(value, indent=indent, ensure_ascii=False)


def check_layout(path, kind, rows=None):
  """The records of a file, which are all found again by their places."""
  rows = THREE if rows is None else rows
  assert records.find_kind(path) == kind
  assert values(path) == rows
  for record, row in zip(read(path), rows, strict=True):
    assert records.record_at(path, record.offset, record.length) == record
    data = records.record_bytes(path, record.offset, record.length)
    assert json.loads(records.split_key(data)[1]) == row


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("bom", ["", "\ufeff\n"])
@pytest.mark.parametrize("most", [window.MOST_BYTES, 170])
@pytest.mark.parametrize(
  "around",
  [
    {"data": 0}, {"info": {}, "annotations": 0, "license": [{"id": 1}] * 9},
    {"version": 1.0, "é": "[{", "tags": ["a"], "samples": 0, "n": None},
  ],
)  # fmt: skip
def test_a_list_inside_one_object(tmp_path, monkeypatch, indent, bom, most, around):
  # With 170 bytes the object is longer than what is looked at.
  monkeypatch.setattr(window, "MOST_BYTES", most)
  monkeypatch.setattr(window, "CHUNK", 64)
  value = {key: THREE if inner == 0 else inner for key, inner in around.items()}
  check_layout(write(tmp_path, bom + dump(value, indent)), json_layouts.WRAPPED)


@pytest.mark.parametrize("indent", [None, 2])
def test_records_by_their_ids(tmp_path, indent):
  by_id = {"x": THREE[0], 'é "q"': THREE[1], "z": {"messages": []}}
  path = write(tmp_path, dump(by_id, indent))
  check_layout(path, json_layouts.KEYED, list(by_id.values()))
  assert [record.id for record in read(path)] == list(by_id)


@pytest.mark.parametrize("between", ["\n", ",\n", " ", ",", "\n\n"])
@pytest.mark.parametrize("indent", [None, 2])
def test_objects_after_each_other(tmp_path, between, indent):
  path = write(tmp_path, between.join(dump(row, indent) for row in THREE) + between)
  lines = indent is None and "\n" in between
  check_layout(path, json_layouts.LINES if lines else json_layouts.OBJECTS)


@pytest.mark.parametrize("between", ["", "\n", ",", " , "])
def test_lists_after_each_other(tmp_path, between):
  path = write(tmp_path, dump(THREE, None) + between + dump(THREE[:1], 1) + " ")
  check_layout(path, json_layouts.LIST, THREE + THREE[:1])


def test_a_comma_after_the_last_record(tmp_path):
  path = write(tmp_path, dump(THREE, 1)[:-1] + ",\n]\n")
  check_layout(path, json_layouts.LIST)


@pytest.mark.parametrize("form", ["lines", "list"])
def test_bare_lists_of_turns_are_conversations(tmp_path, form):
  talks = [[{"from": "human", "value": "]"}], [{"role": "user", "content": "é"}]]
  texts = [json.dumps(talk) for talk in talks]
  path = write(
    tmp_path, "\n".join(texts) if form == "lines" else f"[{', '.join(texts)}]"
  )
  rows = [{"conversations": talk} for talk in talks]
  assert values(path) == rows
  for record, text, row in zip(read(path), texts, rows, strict=True):
    assert records.record_at(path, record.offset, record.length) == record
    assert json.loads(parsing.make_strict(text.encode())) == row


def test_a_file_of_one_record(tmp_path):
  for indent, kind in ((None, json_layouts.LINES), (2, json_layouts.OBJECTS)):
    check_layout(write(tmp_path, dump(THREE[2], indent)), kind, THREE[2:])


def test_lines_after_a_broken_one_are_read(tmp_path):
  path = write(tmp_path, '{"id": "cut\n' + GOOD + "\n" + GOOD)
  assert [r.reason for r in read(path)] == ["malformed", None, None]


@pytest.mark.parametrize(
  ("value", "parts"),
  [
    ({"train": THREE, "test": THREE}, ("several lists", "train, test")),
    ({"images": [{"id": 1}], "annotations": [{"id": 2}]}, ("images, annotations",)),
    ({"chart": {"root": "r/", "annotation": "a.jsonl"}}, ("InternVL", "a.jsonl")),
    ({"mine": {"file_name": "m.json"}}, ("LLaMA-Factory", "m.json")),
    ({"mine": {"hf_hub_url": "a/b"}, "b": {"file_name": "b"}}, ("LLaMA-Factory",)),
    ({"_data_files": [{}], "_fingerprint": ""}, ("Give the folder",)),
    ({"splits": ["train", "test"]}, ("Give the folder",)),
    ({"default": {"features": {}, "citation": ""}}, ("Give the folder",)),
    ({"id": {"0": 1}, "conversations": {"0": []}}, ("orient='records'",)),
  ],
)  # fmt: skip
@pytest.mark.parametrize("indent", [None, 2])
def test_what_looks_like_a_pool_is_named(tmp_path, value, parts, indent):
  fails(write(tmp_path, dump(value, indent)), *parts)


@pytest.mark.parametrize(
  ("data", "parts"),
  [
    ('{"data": [%s], "more": [%s]}', ("second list", "more")),
    ('{"data": [%s] "x": 1}', ("the end of the object",)),
    ('{"data": [%s]', ("end of the file",)),
    ('{"data": [%s], "x": 1', ("ends at byte",)),
    ('{"data": [%s]} {}', ("the end of the object",)),
  ],
)
def test_faults_after_the_list_of_an_object(tmp_path, monkeypatch, data, parts):
  monkeypatch.setattr(window, "MOST_BYTES", 200)  # what follows is not looked at
  text = ", ".join(dump(row, None) for row in THREE * 2)
  fails(write(tmp_path, data.replace("%s", text)), *parts)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("chunk", [64, 1 << 20])
@pytest.mark.parametrize("before", ["", "\ufeff\n "])
def test_lists_of_records_inside_a_list(tmp_path, monkeypatch, indent, chunk, before):
  """As Qwen's tool for fine-tuning has records that share a sequence."""
  monkeypatch.setattr(window, "CHUNK", chunk)
  packed = [THREE[:2], THREE[2], [THREE[0]], [THREE[1], THREE[2]]]
  path = write(tmp_path, before + dump(packed, indent))
  check_layout(path, json_layouts.LIST, [*THREE, *THREE])


def test_bare_lists_of_turns_inside_a_list_are_records_still(tmp_path):
  turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
  path = write(tmp_path, dump([turns, [THREE[0]], turns], None))
  wanted = {parsing.TURNS: turns}
  assert values(path) == [wanted, THREE[0], wanted]


def test_other_lists_inside_a_list_are_malformed(tmp_path):
  path = write(tmp_path, dump([[1], [[THREE[0]]], [], [{"a": 1}], THREE[0]], None))
  found = list(records.read_records(path))
  assert [record.value for record in found] == [None] * 4 + THREE[:1]
  assert all("not a list" in record.detail for record in found[:4])
