"""Reads lists of rows and target shares, from the config or from files."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mllm_selector_jax.data import formats
from mllm_selector_jax.data.files import id_list
from mllm_selector_jax.data.json_text import records
from mllm_selector_jax.data.pool.likeness import read_likeness
from mllm_selector_jax.data.pool.sources import as_text
from mllm_selector_jax.types import InputError, Record

SUFFIXES = (".txt", ".json", ".jsonl", ".parquet")  # a value with one is a file
_COLUMNS = ("id", "row", "hash", "kept")


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
  """

  id: str | None = None
  row: int | None = None
  hash: str | None = None
  text: bytes | None = None
  image: str | None = None
  inline: bool = False


def read_references(value: Any, option: str) -> list[Reference]:
  """Read the entries of a list, of a string with commas, or of a file.

  A file has one id per line, or is one that `id_list` writes, or is JSON (a list of ids
  or of records), JSONL, Parquet or another pool format. If a Parquet file has a column
  `kept`, only the rows that it marks count. An entry may hold a row number and a hash
  beside the id, or be a whole record.

  Args:
    value: The list, string or path.
    option: Name of the option, for error messages.

  Raises:
    InputError: The file does not exist, or is in none of these formats.
  """
  if isinstance(value, int) and not isinstance(value, bool):
    return [Reference(str(value))]
  if not value:
    return []
  if not isinstance(value, str):
    return list(_read_values(list(value), option))
  if not _is_file(value):
    if Path(value).suffix in SUFFIXES:
      raise InputError(f"{option}={value}: there is no such file.")
    return [Reference(value, inline=True)]
  return list(_read_file(Path(value), f"{option}={value}"))


def _is_file(value: str) -> bool:
  try:
    return Path(value).is_file()
  except (OSError, ValueError):  # too long for a file name, or not a valid one
    return False


def _read_file(path: Path, source: str) -> Iterator[Reference]:
  try:
    if not path.stat().st_size:
      return iter(())
    if id_list.is_id_list(path):
      return (
        Reference(line.id, line.row, line.hash or None)
        for line in id_list.read_lines(path)
      )
    form = formats.find_format(str(path))
    if form is formats.ParquetFile:
      return _read_parquet(path, source)
    if form is not formats.JsonFile:
      return _read_records(form(str(path)).records(), source)
    with open(path, "rb") as file:
      first = file.read(4096).removeprefix(b"\xef\xbb\xbf").split()
    start = b"".join(first[:2])[:2]
    if start[:1] == b"{" or start == b"[{":
      return _read_records(_name_errors(records.read_records(path), source), source)
    text = path.read_text("utf-8-sig")
    if start[:1] == b"[":
      return _read_values(json.loads(text), source)
  except ValueError as error:
    if isinstance(error, InputError):
      raise
    raise InputError(
      f"{source}: not a text file, or incomplete JSON ({error})."
    ) from error
  return (Reference(line) for line in text.split("\n") if line.strip())


def _name_errors(raw_records: Iterable[Record], source: str) -> Iterator[Record]:
  try:
    yield from raw_records
  except InputError as error:
    raise InputError(f"{source}: incomplete JSON ({error})") from error


def _read_values(values: list[Any], source: str) -> Iterator[Reference]:
  for number, value in enumerate(values):
    if isinstance(value, dict):
      yield _refer(Record(0, 0, value), number, source)
    elif isinstance(value, str | int | float):
      yield Reference(as_text(value))
    else:
      raise _empty_entry(number, source)


def _read_records(raw_records: Iterable[Record], source: str) -> Iterator[Reference]:
  for number, record in enumerate(raw_records):
    if record.value is None:
      raise InputError(f"{source}: entry {number} is damaged ({record.detail}).")
    yield _refer(record, number, source)


def _refer(record: Record, number: int, source: str) -> Reference:
  label, value = record.value.get("id"), record.value
  name = record.id if label is None else as_text(label)
  if (likeness := read_likeness(record)) is not None:
    # Ignore fields `row` and `hash` of a record: they belong to its data set.
    return Reference(name, text=likeness.text, image=likeness.image)
  row, digest = value.get("row"), value.get("hash")
  row = row if isinstance(row, int) and not isinstance(row, bool) else None
  digest = digest if isinstance(digest, str) and digest else None
  if name is None and row is None and digest is None:
    raise _empty_entry(number, source)
  return Reference(name, row, digest)


def _empty_entry(number: int, source: str) -> InputError:
  return InputError(
    f"{source}: entry {number} has no id, row, hash or conversation. The file must have"
    " one id per line, or be a JSON list of ids or of records, or be Parquet with"
    " records or with a column id, row or hash."
  )


def _read_parquet(path: Path, source: str) -> Iterator[Reference]:
  import pyarrow as pa
  import pyarrow.parquet as pq

  try:
    names = pq.read_schema(path).names
    if pq.read_metadata(path).num_rows:
      file = formats.ParquetFile(str(path))
      if read_likeness(next(file.records())) is not None:
        kept = (r for r in file.records() if r.value is None or r.value.get("kept", 1))
        return _read_records(kept, source)
    if not {"id", "row", "hash"} & set(names):
      raise InputError(
        f"{source}: the Parquet file has no column id, row or hash; it has"
        f" {', '.join(names[:20])}."
      )
    table = pq.read_table(path, columns=[name for name in _COLUMNS if name in names])
    if "kept" in names:
      table = table.filter(table["kept"].cast(pa.bool_()))
  except (pa.ArrowException, OSError) as error:
    raise InputError(f"{source}: the Parquet file is damaged ({error}).") from error
  lines = table.to_pylist()
  return (
    _refer(Record(0, 0, line), number, source) for number, line in enumerate(lines)
  )


def read_shares(value: Any) -> dict[str, float] | None:
  """Read target shares by group name from a dict, a JSON string or a JSON file.

  Raises:
    InputError: The value is none of these.
  """
  if not value:
    return None
  if isinstance(value, str):
    try:
      text = Path(value).read_text() if Path(value).is_file() else value
      value = json.loads(text)
    except (OSError, ValueError) as error:
      raise InputError(
        f"select.target_shares={value}: neither JSON nor a JSON file ({error}); give"
        ' {"group": share, ...}, in the config or in a file.'
      ) from error
  number = (int, float)
  if not isinstance(value, Mapping) or not all(
    isinstance(share, number) and not isinstance(share, bool)
    for share in value.values()
  ):
    raise InputError(
      f"select.target_shares is {value!r}; it must map group names to numbers."
    )
  return {str(name): float(share) for name, share in value.items()}
