"""Lists of id, row and hash, written and read again."""

import pytest

from mllm_selector_jax.data.files import id_list

ODD = [
  "",
  " a ",
  "a,b",
  "a\tb",
  "a\nb",
  "a\rb",
  "a\r\nb",
  '"',
  '"a" b',
  "é\u2028",
  "\0",
]


def test_ids_of_any_characters_come_back(tmp_path):
  path = tmp_path / "ids.txt"
  names = [*ODD, "id\trow\thash", "x" * 200_000]
  lines = [id_list.Line(name, row, f"{row:032x}") for row, name in enumerate(names)]
  lines.append(id_list.Line("a", 99, ""))
  id_list.write_lines(path, lines)
  assert id_list.is_id_list(path) and id_list.read_lines(path) == lines
  assert path.read_bytes().startswith(b"id\trow\thash\n\t0\t")


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_table_that_an_editor_saved_is_read(tmp_path, ending):
  path = tmp_path / "ids.txt"
  path.write_bytes(b"\xef\xbb\xbfid\trow\thash" + ending + b"a\t3\tff" + ending * 2)
  assert id_list.is_id_list(path)
  assert id_list.read_lines(path) == [id_list.Line("a", 3, "ff")]


@pytest.mark.parametrize("first", ["id", "id\trow", "id\trow\thash\tx", "a\t1\tff", ""])
def test_only_the_header_makes_a_table(tmp_path, first):
  path = tmp_path / "ids.txt"
  path.write_text(f"{first}\na\t1\tff\n")
  assert not id_list.is_id_list(path)


@pytest.mark.parametrize("line", ["a", "a\t1", "a\t1\tff\tx", "a\t-1\tff", "a\t²\tff"])
def test_a_line_that_is_none_is_named(tmp_path, line):
  path = tmp_path / "ids.txt"
  path.write_text(f"id\trow\thash\nb\t0\tff\n{line}\n")
  with pytest.raises(ValueError, match="entry 1 has"):
    id_list.read_lines(path)
