"""Reads and writes lists of rows: files with one `id<TAB>row<TAB>hash` per line.

The files are in the `excel-tab` dialect of Python's `csv` module, so that an id may
hold tabs, quotes and line breaks.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("id", "row", "hash")
HEADER = "\t".join(COLUMNS)  # the first line, by which such a file is recognised
_MOST_CHARACTERS = 1 << 30  # of an id; the default limit of csv is 128 KiB


class Line(NamedTuple):
  """One row of the pool.

  Attributes:
    id: the row's label, which other rows may share.
    row: the row's number in the pool.
    hash: the hash of the row's content; empty for a row that was set aside.
  """

  id: str
  row: int
  hash: str


def write_lines(path: Path, lines: Iterable[Line]) -> None:
  """Writes a header and one line for each row."""
  with open(path, "w", encoding="utf-8", newline="") as file:
    plain = csv.writer(file, "excel-tab", lineterminator="\n")
    quoted = csv.writer(file, "excel-tab", lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(COLUMNS)
    for line in lines:
      # csv does not quote a lone carriage return, but reads it as a line break.
      (quoted if "\r" in line.id else plain).writerow(line)


def is_id_list(path: Path) -> bool:
  """Returns whether a file's first line is the header of a list of rows."""
  with open(path, "rb") as file:
    first = file.readline(len(HEADER) + 8)
  return first.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") == HEADER.encode()


def read_lines(path: Path) -> list[Line]:
  """Reads the lines below the header.

  Raises:
    ValueError: a line has other columns, or its row is not a number.
  """
  limit_before = csv.field_size_limit(_MOST_CHARACTERS)
  try:
    with open(path, encoding="utf-8-sig", newline="") as file:
      rows = list(csv.reader(file, "excel-tab"))[1:]
  except csv.Error as error:
    raise ValueError(str(error)) from error
  finally:
    csv.field_size_limit(limit_before)
  return [_read_line(index, cells) for index, cells in enumerate(filter(None, rows))]


def _read_line(index: int, cells: list[str]) -> Line:
  if len(cells) != len(COLUMNS):
    raise ValueError(f"entry {index} has {len(cells)} columns, not {len(COLUMNS)}")
  name, row, digest = cells
  if not (row.isascii() and row.isdecimal()):
    raise ValueError(f"entry {index} has {row[:40]!r} where a row number is expected")
  return Line(name, int(row), digest)
