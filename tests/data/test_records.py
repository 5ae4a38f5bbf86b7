"""Pool files, whole and broken: against json.loads, and byte for byte."""

import codecs
import json
import tracemalloc

import hypothesis
import pytest
from hypothesis import strategies as st

from mllm_selector_jax.data.json_text import parsing, records, window
from mllm_selector_jax.types import InputError


def write(folder, data, name="pool.json"):
  path = folder / name
  path.write_bytes(data.encode() if isinstance(data, str) else data)
  return path


def read(path):
  return list(records.read_records(path))


def values(path):
  return [record.value for record in read(path)]


def fails(path, *parts):
  with pytest.raises(InputError) as caught:
    read(path)
  for part in (path, *parts):
    assert str(part) in str(caught.value)


ROWS = [
  {"id": "a", "conversations": [{"from": "human", "value": 'q "]}\\ '}], "n": -1.5e3},
  {"id": 'é "quoted" 你好 🙂', "image": None, "nested": {"list": [[], {}, [1, 2]]}},
  {},
  {"id": "escapes", "text": "\t\n\\u0000 \u0001 \U0001f600 \\"},
]


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("bom", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_list_reads_as_json_does(tmp_path, indent, ascii_only, bom, line_end):
  text = json.dumps(ROWS, indent=indent, ensure_ascii=ascii_only)
  path = write(tmp_path, bom + f" \n{text}\n ".replace("\n", line_end).encode())
  assert values(path) == ROWS


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("bom", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\n\n  "])
@pytest.mark.parametrize("last", ["", "\n"])
def test_lines_read_as_json_does(tmp_path, ascii_only, bom, line_end, last):
  lines = [json.dumps(row, ensure_ascii=ascii_only) for row in ROWS]
  path = write(tmp_path, bom + (line_end.join(lines) + last).encode())
  assert values(path) == ROWS


@pytest.mark.parametrize("form", ["list", "lines"])
def test_offsets_give_the_record_back(tmp_path, form):
  texts = [json.dumps(row, ensure_ascii=False) for row in ROWS]
  data = f"[{' , '.join(texts)}]" if form == "list" else " \n".join(texts)
  path = write(tmp_path, "\n" + data)
  for record, text, row in zip(read(path), texts, ROWS, strict=True):
    found = records.record_bytes(path, record.offset, record.length)
    assert found == text.encode()
    assert records.record_at(path, record.offset, record.length).value == row


JSON = st.recursive(
  st.none() | st.booleans() | st.integers(-(10**20), 10**20)
  | st.floats(allow_nan=False, allow_infinity=False)
  | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
  lambda inner: st.lists(inner, max_size=3)
  | st.dictionaries(st.text(max_size=3), inner, max_size=3),
  max_leaves=8,
)  # fmt: skip


@hypothesis.settings(
  max_examples=80,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  rows=st.lists(st.dictionaries(st.text(max_size=3), JSON, max_size=3), min_size=1),
  chunk=st.integers(1, 40),
  lines=st.booleans(),
  ascii_only=st.booleans(),
)
def test_any_records_at_any_chunk_size(
  tmp_path, monkeypatch, rows, chunk, lines, ascii_only
):
  monkeypatch.setattr(window, "CHUNK", chunk)
  if lines and len(rows) == 1:
    rows = rows * 2  # one object alone may be one that holds records
  texts = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
  text = "\n".join(texts) if lines else f"[{','.join(texts)}]"
  try:
    data = text.encode()
  except UnicodeEncodeError:
    hypothesis.reject()
  path = write(tmp_path, data)
  found = read(path)
  assert [record.length for record in found] == [len(t.encode()) for t in texts]
  for record, row in zip(found, rows, strict=True):
    if record.reason is None:
      assert record.value == row
    else:
      assert "surrogate" in record.detail


def nest(levels):
  return '{"a": ' + "[" * levels + "]" * levels + "}"


GOOD = '{"id": "good"}'
BAD = {
  "unquoted": ("{id: 1}", "invalid JSON"),
  "missing comma": ('{"a": 1 "b": 2}', "invalid JSON"),
  "single quotes": ("{'a': 1}", "Python's"),
  "mismatched": ('{"a": [1}}', "invalid JSON"),
  "raw control": ('{"a": "\x01"}', "invalid JSON"),
  "bad escape": ('{"a": "\\q"}', "invalid JSON"),
  "digits": ('{"a": %s}' % ("9" * 5000), "digits"),
  "101 levels": (nest(100), "100 levels"),
  "10,000 levels": (nest(10_000), "100 levels"),
  "10,000 objects": ('{"a":' * 10_000 + "1" + "}" * 10_000, "100 levels"),
  "lone surrogate": ('{"a": "\\ud800"}', "surrogate"),
  "low surrogate": ('{"a": "x\\uDC00"}', "surrogate"),
  "surrogate in a key": ('{"\\udfff": 1}', "surrogate"),
  "text": ('"text"', "not text"),
  "number": ("12", "not a number"),
  "null": ("null", "not null"),
  "list": ('[{"id": 1}]', "not a list"),
  "word": ("undefined", "invalid JSON"),
}
BAD_BYTES = {
  "byte": (b'{"a": "\xff"}', "byte 7"),
  "latin": ('{"ä": "é"}'.encode("latin-1"), "byte 2"),
  "overlong": (b'{"a": "\xc0\x80"}', "UTF-8"),
  "encoded surrogate": (b'{"a": "\xed\xa0\x80"}', "UTF-8"),
  "cut character": (b'{"a": "\xe4\xbd"}', "UTF-8"),
}
ALL_BAD = {k: (v.encode(), d) for k, (v, d) in BAD.items()} | BAD_BYTES


@pytest.mark.parametrize("name", ALL_BAD)
@pytest.mark.parametrize("form", ["list", "lines"])
@pytest.mark.parametrize("chunk", [1 << 20, 7])
def test_a_bad_record_is_set_aside_and_the_next_is_read(
  tmp_path, monkeypatch, form, name, chunk
):
  monkeypatch.setattr(window, "CHUNK", chunk)
  text, detail = ALL_BAD[name]
  items = [GOOD.encode(), text, GOOD.encode()]
  data = b"[" + b", ".join(items) + b"]" if form == "list" else b"\n".join(items)
  path = write(tmp_path, data)
  first, bad, last = read(path)
  assert first.value == last.value == {"id": "good"}
  assert (bad.value, bad.reason) == (None, "malformed")
  assert detail in bad.detail
  assert records.record_bytes(path, bad.offset, bad.length) == text
  with pytest.raises(InputError, match="changed"):
    records.record_at(path, bad.offset, bad.length)


def test_what_is_just_allowed(tmp_path):
  rows = [
    nest(99),
    '{"a": [' + "[], " * 500 + "[]]}",
    '{"a": %s}' % ("9" * 4000),
    '{"a": "\\ud83d\\ude00"}',
    '{"a": "%s"}' % ("[{" * 500),
  ]
  path = write(tmp_path, f"[{', '.join(rows)}]")
  assert values(path) == [json.loads(row) for row in rows]


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "-1e400"])
@pytest.mark.parametrize("form", ["list", "lines"])
def test_what_is_no_number_is_null(tmp_path, form, word):
  texts = [f'{{"a": {word}, "b": [{word}, 1.5]}}', '{"a": "NaN"}']
  data = f"[{', '.join(texts)}]" if form == "list" else "\n".join(texts)
  path = write(tmp_path, data)
  assert values(path) == [{"a": None, "b": [None, 1.5]}, {"a": "NaN"}]
  assert [parsing.make_strict(text.encode()) for text in texts] == [
    b'{"a": null, "b": [null, 1.5]}', texts[1].encode()
  ]  # fmt: skip


def test_text_that_may_be_cut_is_not_made_strict():
  for data in (b'{"a": NaN, "b', b'{"a": 1e400}, {', b'{"a": 1e300}'):
    assert parsing.make_strict(data) == data


@pytest.mark.parametrize("form", ["list", "lines"])
def test_a_huge_record_is_set_aside_in_bounded_memory(tmp_path, form):
  size = 100 << 20
  path = tmp_path / "pool.json"
  with open(path, "wb") as file:
    file.write(b"[" if form == "list" else b"")
    file.write(GOOD.encode() + (b"," if form == "list" else b"\n") + b'{"a": "')
    for _ in range(100):
      file.write(b"x" * (1 << 20))
    file.write(b'"}' + (b"," if form == "list" else b"\n") + GOOD.encode())
    file.write(b"]" if form == "list" else b"")
  tracemalloc.start()
  first, huge, last = read(path)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert first.value == last.value == {"id": "good"}
  assert huge.reason == "malformed"
  assert f"{huge.length:,} bytes" in huge.detail
  assert huge.length - size in (9, 10)
  assert peak < 5 * records.MOST_BYTES


def test_memory_does_not_grow_with_the_file(tmp_path):
  row = json.dumps({"id": "x", "text": "y" * 1000})
  path = write(tmp_path, f"[{','.join([row] * 20_000)}]")
  tracemalloc.start()
  count = sum(1 for _ in records.read_records(path))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert count == 20_000
  assert peak < 8 << 20


# Faults of the file as a whole.


@pytest.mark.parametrize("data", ["", " \n\r\n ", codecs.BOM_UTF8])
def test_empty_files(tmp_path, data):
  fails(write(tmp_path, data), "expected a JSON list")


def test_an_empty_list(tmp_path):
  fails(write(tmp_path, " [ ] "), "empty")


def test_a_missing_file_and_a_directory(tmp_path):
  fails(tmp_path / "none.json", "does not exist")
  fails(tmp_path, "directory")


@pytest.mark.parametrize("data", ["hello", "id,image\n", "<html>", '"text"', "null"])
def test_neither_list_nor_lines(tmp_path, data):
  fails(write(tmp_path, data), "byte 0", "line 1", "expected a JSON list")


@pytest.mark.parametrize(
  ("data", "parts"),
  [
    (f"[{GOOD}\n {GOOD}]", ("byte 17", "line 2", "comma")),
    (f"[{GOOD},,{GOOD}]", ("byte 16", "expected a record")),
    (f"[{GOOD}", ("byte 15", "end of the file")),
    (f"[{GOOD},", ("byte 16", "end of the file")),
    ("[", ("end of the file",)),
    (f"[{GOOD}] {GOOD}", ("byte 17", "nothing after")),
    (f"[{GOOD}}}", ("byte 15", "comma")),
    (f'[{GOOD},\n{{"id": "cu', ("byte 17", "line 2", "cut off")),
    (f'[{GOOD},\n{{"id": [1, 2', ("byte 17", "line 2", "cut off")),
    (f'[{GOOD},\n{{"id": "x, {GOOD}]', ("byte 17", "line 2", "first fault")),
  ],
)
def test_faults_between_records(tmp_path, data, parts):
  fails(write(tmp_path, data), *parts)


def test_a_position_after_other_alphabets_is_in_bytes(tmp_path):
  data = '[{"a": "你好"} {"b": 1}]'
  place = data.encode().index(b'{"b"')
  fails(write(tmp_path, data), f"byte {place}")


def test_a_shorter_file_than_at_the_check(tmp_path):
  path = write(tmp_path, f"[{GOOD}]")
  with pytest.raises(InputError, match="changed"):
    records.record_bytes(path, 10, 100)
  with pytest.raises(InputError, match="cannot be read"):
    records.record_bytes(tmp_path / "gone", 0, 1)
