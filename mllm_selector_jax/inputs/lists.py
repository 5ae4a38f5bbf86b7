"""Reads lists of rows, from the config or from files."""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mllm_selector_jax.data import formats
from mllm_selector_jax.data.files import id_list
from mllm_selector_jax.data.json_text import records
from mllm_selector_jax.data.pool.likeness import read_likeness
from mllm_selector_jax.data.pool.sources import as_text
from mllm_selector_jax.types import InputError, Record

SUFFIXES = (
  ".txt",
  ".json",
  ".jsonl",
  ".csv",
  ".tsv",
  ".parquet",
)  # a value with one is a file
_NAMES = {"id", "row", "hash"}  # columns of which an entry has at least one
_TABLES = {".csv": "excel", ".tsv": "excel-tab"}  # dialects of `csv` by suffix
_LONGEST = 19  # digits of a row number
# The first id and the first character of its score, without spaces.
_SCORES = re.compile(rb'\{"(?:[^"\\]|\\.)*":[-\dNI]')
_WITH_COLUMNS = re.compile(r"(.+?)(?:#(\w[\w ]*))?(?:@(-?\w[\w ]*))?")


class Columns(NamedTuple):
  """The names of columns of a list that its own format does not tell.

  Attributes:
    row: The column of numbers of pool rows, in place of `row`; empty for `row`.
    score: The column of the scores, which "-" before its name inverts; empty for none.
  """

  row: str = ""
  score: str = ""


NO_COLUMNS = Columns()


class Reference(NamedTuple):
  """What an entry of a list says about its row; `references` finds the row.

  Attributes:
    id: The label, which several rows may share.
    row: The row's number in the pool.
    hash: Hash of the row's content.
    text: `likeness.Likeness.text` of an entry that is a whole record.
    image: `likeness.Likeness.image` of such an entry.
    inline: Whether the id comes from the config or the command line, and may therefore
      be several ids separated by commas.
    score: By how much others prefer the row, if the list has scores.
  """

  id: str | None = None
  row: int | None = None
  hash: str | None = None
  text: bytes | None = None
  image: str | None = None
  inline: bool = False
  score: float | None = None


def read_references(value: Any, option: str) -> list[Reference]:
  """Read the entries of a list, of a string with commas, or of a file.

  A file has one id per line, or is one that `id_list` writes, or is JSON (a list of ids
  or of records), JSONL, Parquet or another pool format. If a Parquet file has a column
  `kept`, only the rows that it marks count. An entry may hold a row number and a hash
  beside the id, or be a whole record. A file in CSV (`.csv`, or `.tsv` with tabs) has a
  header with `id`, `row` or `hash`.

  Args:
    value: The list, string or path. A path may be followed by "#" and the column of
      numbers of pool rows, and by "@" and the column of the entries' scores, which "-"
      before its name inverts. For an object of ids and scores, any name of scores does.
      In a list of bare numbers they are ids, and with "#" and any name rows.
    option: Name of the option, for error messages.

  Raises:
    InputError: The file does not exist, is in none of these formats, or an entry has
      no score where a column is named.
  """
  if isinstance(value, int) and not isinstance(value, bool):
    return [Reference(str(value))]
  if not value:
    return []
  if not isinstance(value, str):
    return list(_read_values(list(value), option))
  if not _is_file(value):
    path, columns = split_columns(value)
    if columns != NO_COLUMNS:
      if not _is_file(path):
        raise InputError(f"{option}={value}: there is no file {path}.")
      return list(_read_file(Path(path), f"{option}={path}", columns))
    if Path(value).suffix in SUFFIXES:
      raise InputError(f"{option}={value}: there is no such file.")
    return [Reference(value, inline=True)]
  return list(_read_file(Path(value), f"{option}={value}"))


def split_columns(value: str) -> tuple[str, Columns]:
  """Split "FILE#COLUMN@COLUMN" into the file and the columns of rows and of scores."""
  match = _WITH_COLUMNS.fullmatch(value)
  if not match or _is_file(value) or not Path(match[1]).suffix:
    return value, NO_COLUMNS
  return match[1], Columns(match[2] or "", match[3] or "")


def _is_file(value: str) -> bool:
  try:
    return Path(value).is_file()
  except (OSError, ValueError):  # too long for a file name, or not a valid one
    return False


def _read_file(
  path: Path, source: str, columns: Columns = NO_COLUMNS
) -> Iterator[Reference]:
  try:
    if not path.stat().st_size:
      return iter(())
    if dialect := _TABLES.get(path.suffix):
      with open(path, encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file, dialect=dialect)
        if {*_NAMES, columns.row} & set(lines.fieldnames or ()):
          filled = [
            {k: v for k, v in _check_line(number, line).items() if v}
            for number, line in enumerate(lines)
          ]
          return _read_values(filled, source, columns)
      if columns.score:
        raise InputError(
          f"{source}: the first line names no column id, row or hash; name the column"
          " of row numbers, if there is one, by FILE#COLUMN."
        )
    if id_list.is_id_list(path):
      return (
        Reference(line.id, line.row, line.hash or None)
        for line in id_list.read_lines(path)
      )
    form = formats.find_format(str(path))
    if form is formats.ParquetFile:
      return _read_parquet(path, source, columns)
    if form is not formats.JsonFile:
      return _read_records(form(str(path)).records(), source, columns)
    with open(path, "rb") as file:
      first = file.read(4096).removeprefix(b"\xef\xbb\xbf").split()
    start = b"".join(first[:2])[:2]
    if _SCORES.match(b"".join(first)) and (scores := _read_scores(path)):
      key = (
        columns.score.removeprefix("-") or "score"
      )  # the scores of the file have no name
      entries = [{"id": label, key: score} for label, score in scores.items()]
      return _read_values(entries, source, columns)
    if start[:1] == b"{" or start == b"[{":
      named = _name_errors(records.read_records(path), source)
      return _read_records(named, source, columns)
    text = path.read_text("utf-8-sig")
    if start[:1] == b"[":
      return _read_values(json.loads(text), source, columns)
  except (ValueError, RecursionError, csv.Error) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(
      f"{source}: not a text file, or incomplete JSON or CSV ({error})."
    ) from error
  return _read_values(
    [line for line in text.split("\n") if line.strip()], source, columns
  )


def _check_line(number: int, line: dict[Any, Any]) -> dict[str, Any]:
  """Refuses a line of CSV that has more fields than its header."""
  if None in line:
    raise ValueError(f"entry {number} has more fields than the first line")
  return line


def _read_scores(path: Path) -> dict[str, int | float]:
  """Read a JSON object of ids and scores; an empty dict if the file is none."""
  try:
    value = json.loads(path.read_text("utf-8-sig"))
  except ValueError:  # JSON lines, for example
    return {}
  if _NAMES & set(value):  # one entry
    return {}
  scores = value.values()
  number = all(isinstance(x, int | float) and not isinstance(x, bool) for x in scores)
  return value if number else {}


def _name_errors(raw_records: Iterable[Record], source: str) -> Iterator[Record]:
  try:
    yield from raw_records
  except InputError as error:
    raise InputError(f"{source}: incomplete JSON ({error})") from error


def _read_values(
  values: list[Any], source: str, columns: Columns = NO_COLUMNS
) -> Iterator[Reference]:
  for number, value in enumerate(values):
    if isinstance(value, dict):
      yield _refer(Record(0, 0, value), number, source, columns)
    elif columns.score:
      raise _no_score(number, source, columns)
    elif columns.row:
      yield Reference(row=_read_row(value, number, source, columns))
    elif isinstance(value, str | int | float):
      yield Reference(as_text(value))
    else:
      raise _empty_entry(number, source)


def _read_records(
  raw_records: Iterable[Record], source: str, columns: Columns = NO_COLUMNS
) -> Iterator[Reference]:
  for number, record in enumerate(raw_records):
    if record.value is None:
      raise InputError(f"{source}: entry {number} is damaged ({record.detail}).")
    yield _refer(record, number, source, columns)


def _refer(
  record: Record, number: int, source: str, columns: Columns = NO_COLUMNS
) -> Reference:
  label, value = record.value.get("id"), record.value
  score = _read_score(value, number, source, columns) if columns.score else None
  name = record.id if label is None else as_text(label)
  if columns.row:
    row = _read_row(value.get(columns.row), number, source, columns)
    return Reference(name, row, score=score)
  if (likeness := read_likeness(record)) is not None:
    # Ignore fields `row` and `hash` of a record: they belong to its data set.
    return Reference(name, text=likeness.text, image=likeness.image, score=score)
  row, digest = _to_row(value.get("row")), value.get("hash")
  digest = digest if isinstance(digest, str) and digest else None
  if name is None and row is None and digest is None:
    raise _empty_entry(number, source)
  return Reference(name, row, digest, score=score)


def _to_row(value: Any) -> int | None:
  """Reads the number of a row, which is a text in CSV; None if it is none."""
  text = value.strip() if isinstance(value, str) else ""
  if text.isascii() and text.isdecimal() and len(text) < _LONGEST:
    return int(text)
  return value if isinstance(value, int) and not isinstance(value, bool) else None


def _read_row(value: Any, number: int, source: str, columns: Columns) -> int:
  if (row := _to_row(value)) is None:
    raise InputError(
      f"{source}: entry {number} has no row number in {columns.row!r}, which was named"
      f" as the column of row numbers; it has {str(value)[:40]!r}. Row numbers are"
      " whole numbers from 0."
    )
  return row


def _read_score(value: Any, number: int, source: str, columns: Columns) -> float:
  try:
    score = float(value[columns.score.removeprefix("-")])
  except (KeyError, TypeError, ValueError) as error:
    raise _no_score(number, source, columns) from error
  if not math.isfinite(score):
    raise _no_score(number, source, columns)
  return -score if columns.score.startswith("-") else score


def _no_score(number: int, source: str, columns: Columns) -> InputError:
  return InputError(
    f"{source}: entry {number} has no finite number in the column"
    f" {columns.score.removeprefix('-')!r}, which was named as that of the scores."
  )


def _empty_entry(number: int, source: str) -> InputError:
  return InputError(
    f"{source}: entry {number} has no id, row, hash or conversation. The file must have"
    " one id per line, or be a JSON list of ids or of records, or an object of ids and"
    " scores, or be Parquet with"
    " records or with a column id, row or hash."
  )


def _read_parquet(path: Path, source: str, columns: Columns) -> Iterator[Reference]:
  import pyarrow as pa
  import pyarrow.parquet as pq

  try:
    names = pq.read_schema(path).names
    if pq.read_metadata(path).num_rows:
      file = formats.ParquetFile(str(path))
      if not columns.row and read_likeness(next(file.records())) is not None:
        kept = (r for r in file.records() if r.value is None or r.value.get("kept", 1))
        return _read_records(kept, source, columns)
    if not {*_NAMES, columns.row} & set(names):
      raise InputError(
        f"{source}: the Parquet file has no column id, row or hash; it has"
        f" {', '.join(names[:20])}."
      )
    wanted = {*_NAMES, "kept", columns.row, columns.score.removeprefix("-")}
    table = pq.read_table(path, columns=[name for name in wanted if name in names])
    if "kept" in names:
      table = table.filter(table["kept"].cast(pa.bool_()))
  except (pa.ArrowException, OSError) as error:
    raise InputError(f"{source}: the Parquet file is damaged ({error}).") from error
  lines = table.to_pylist()
  return (
    _refer(Record(0, 0, line), number, source, columns)
    for number, line in enumerate(lines)
  )
