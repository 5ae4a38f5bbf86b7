"""Files of ids that say which rows are meant: `id<TAB>row<TAB>hash` a line.

The lines are those of Python's `csv` module in its dialect `excel-tab`, so that an id
may hold tabs, quotes and line breaks.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("id", "row", "hash")
HEADER = "\t".join(COLUMNS)  # the first line; a file without it is not of this form
_MOST_CHARACTERS = 1 << 30  # of an id; csv refuses more than 128 KiB by default


class Line(NamedTuple):
  """One row of the pool.

  Attributes:
    id: the label, which may repeat.
    row: the number in the pool.
    hash: of the row's content; empty for a row that was set aside.
  """

  id: str
  row: int
  hash: str


def write_lines(path: Path, lines: Iterable[Line]) -> None:
  """Writes a header and a line a row."""
  with open(path, "w", encoding="utf-8", newline="") as file:
    plain = csv.writer(file, "excel-tab", lineterminator="\n")
    quoted = csv.writer(file, "excel-tab", lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(COLUMNS)
    for line in lines:
      # csv leaves a lone carriage return unquoted, and then reads two lines.
      (quoted if "\r" in line.id else plain).writerow(line)


def is_id_list(path: Path) -> bool:
  """Whether a file's first line is the header of this form."""
  with open(path, "rb") as file:
    first = file.readline(len(HEADER) + 8)
  return first.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") == HEADER.encode()


def read_lines(path: Path) -> list[Line]:
  """The lines below the header.

  Raises:
    ValueError: a line has other columns, or no number of a row.
  """
  before = csv.field_size_limit(_MOST_CHARACTERS)
  try:
    with open(path, encoding="utf-8-sig", newline="") as file:
      rows = list(csv.reader(file, "excel-tab"))[1:]
  except csv.Error as error:
    raise ValueError(str(error)) from error
  finally:
    csv.field_size_limit(before)
  return [_read_line(place, cells) for place, cells in enumerate(filter(None, rows))]


def _read_line(place: int, cells: list[str]) -> Line:
  if len(cells) != len(COLUMNS):
    raise ValueError(f"entry {place} has {len(cells)} columns, not {len(COLUMNS)}")
  name, row, digest = cells
  if not (row.isascii() and row.isdecimal()):
    raise ValueError(f"entry {place} has {row[:40]!r} where a row's number is due")
  return Line(name, int(row), digest)
