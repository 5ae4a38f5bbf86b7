"""A column of text in Arrow's memory, against a list."""

import numpy as np
import pyarrow as pa
import pytest

from mllm_selector_jax.data.pool.text_column import Text

VALUES = ["b", None, "a", "b", "", 'é "\n', None, "a"]
COLUMNS = {
  "one chunk": pa.chunked_array([pa.array(VALUES)]),
  "three chunks": pa.chunked_array([VALUES[:2], VALUES[2:3], VALUES[3:]]),
  "dictionaries": pa.chunked_array(
    [pa.array(part).dictionary_encode() for part in (VALUES[:5], VALUES[5:])]
  ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_reads_as_a_list_does(name):
  text = Text(COLUMNS[name])
  assert len(text) == len(VALUES)
  assert list(text) == text.tolist() == VALUES
  for row in (0, 1, -1, np.int64(5)):
    assert text[row] == VALUES[row]
  assert text[2:6].tolist() == VALUES[2:6]
  assert text[[7, 0, 1]].tolist() == ["a", "b", None]
  assert text[np.arange(8) % 3 == 0].tolist() == VALUES[::3]
  assert text[np.zeros(8, bool)].tolist() == []
  for value in ("b", "", "none of them"):
    assert text.equals(value).tolist() == [other == value for other in VALUES]
  wanted = ["a", "no", "", "\ud800", 'é "\n']
  found = text.find(wanted)
  assert [code >= 0 for code in found] == [value in VALUES for value in wanted]
  for value, code in zip(wanted, found, strict=True):
    assert code < 0 or (text.codes == code).tolist() == [value == v for v in VALUES]
  assert text.find([]).tolist() == []
  same = text.codes[:, None] == text.codes
  assert same.tolist() == [[one == other for other in VALUES] for one in VALUES]
  assert pa.array(text, pa.string()).to_pylist() == VALUES
  assert pa.array(text).type == pa.string()


def test_many_blocks(monkeypatch):
  monkeypatch.setattr("mllm_selector_jax.data.pool.text_column._BLOCK", 3)
  assert list(Text(COLUMNS["one chunk"])) == VALUES


@pytest.mark.parametrize(
  "column",
  [pa.chunked_array([], pa.string()), pa.chunked_array([pa.array([], pa.string())])],
)
def test_no_row(column):
  text = Text(column)
  assert len(text) == 0 and text.tolist() == [] and not len(text.equals("a"))


def test_equal_text_is_held_once():
  many = Text(pa.chunked_array([["the same long text"] * 1000] * 50))
  assert len(many._names) == 1 and many.codes.nbytes == 4 * 50_000


def test_nothing_but_none():
  text = Text(pa.chunked_array([pa.array([None, None], pa.string())]))
  assert text.tolist() == [None, None] and text[0] is None
  assert pa.array(text, pa.string()).to_pylist() == [None, None]
