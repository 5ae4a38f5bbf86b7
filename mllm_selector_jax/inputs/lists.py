"""Lists that people give: rows and target shares, in the config or in files."""

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

SUFFIXES = (".txt", ".json", ".jsonl", ".parquet")  # of what must be a file
_COLUMNS = ("id", "row", "hash", "kept")


class Reference(NamedTuple):
  """What an entry of a list says of the row that it means; `references` finds it.

  Attributes:
    id: the label, which may be that of several rows.
    row: the row's number in the pool.
    hash: of the row's content.
    text: of an entry that is a whole record: its `likeness.Likeness.text`.
    image: likewise.
    inline: the id is a text of the config or the command line, which may be several
      ids with commas.
  """

  id: str | None = None
  row: int | None = None
  hash: str | None = None
  text: bytes | None = None
  image: str | None = None
  inline: bool = False


def read_references(value: Any, name: str) -> list[Reference]:
  """The entries of a list, of a text with commas, or of a file.

  A file is what `id_list` writes; or has one id a line; or is JSON (a list of ids or
  of records), JSONL, Parquet or another format of a pool. Of Parquet those rows count
  that its column `kept` marks, if there is one. An entry may say a row's number and
  hash beside the id, or be a whole record.

  Args:
    value: the list, text or path.
    name: of the option, for messages.

  Raises:
    InputError: the file is none of these, or is not there.
  """
  if isinstance(value, int) and not isinstance(value, bool):
    return [Reference(str(value))]
  if not value:
    return []
  if not isinstance(value, str):
    return list(_read_values(list(value), name))
  if not _is_file(value):
    if Path(value).suffix in SUFFIXES:
      raise InputError(f"{name}={value}: there is no such file.")
    return [Reference(value, inline=True)]
  return list(_read_file(Path(value), f"{name}={value}"))


def _is_file(value: str) -> bool:
  try:
    return Path(value).is_file()
  except (OSError, ValueError):  # too long for a name, or no name at all
    return False


def _read_file(path: Path, what: str) -> Iterator[Reference]:
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
      return _read_parquet(path, what)
    if form is not formats.JsonFile:
      return _read_records(form(str(path)).records(), what)
    with open(path, "rb") as file:
      first = file.read(4096).removeprefix(b"\xef\xbb\xbf").split()
    start = b"".join(first[:2])[:2]
    if start[:1] == b"{" or start == b"[{":
      return _read_records(_whole(records.read_records(path), what), what)
    text = path.read_text("utf-8-sig")
    if start[:1] == b"[":
      return _read_values(json.loads(text), what)
  except ValueError as error:
    if isinstance(error, InputError):
      raise
    raise InputError(f"{what}: no text or not whole JSON ({error}).") from error
  return (Reference(line) for line in text.split("\n") if line.strip())


def _whole(found: Iterable[Record], what: str) -> Iterator[Record]:
  try:
    yield from found
  except InputError as error:
    raise InputError(f"{what}: not whole JSON ({error})") from error


def _read_values(values: list[Any], what: str) -> Iterator[Reference]:
  for place, value in enumerate(values):
    if isinstance(value, dict):
      yield _refer(Record(0, 0, value), place, what)
    elif isinstance(value, str | int | float):
      yield Reference(as_text(value))
    else:
      raise _nothing(place, what)


def _read_records(found: Iterable[Record], what: str) -> Iterator[Reference]:
  for place, record in enumerate(found):
    if record.value is None:
      raise InputError(f"{what}: entry {place} is not whole ({record.detail}).")
    yield _refer(record, place, what)


def _refer(record: Record, place: int, what: str) -> Reference:
  own, value = record.value.get("id"), record.value
  name = record.id if own is None else as_text(own)
  if (likeness := read_likeness(record)) is not None:
    # A data set's own fields may have any name, `row` and `hash` as well.
    return Reference(name, text=likeness.text, image=likeness.image)
  row, digest = value.get("row"), value.get("hash")
  row = row if isinstance(row, int) and not isinstance(row, bool) else None
  digest = digest if isinstance(digest, str) and digest else None
  if name is None and row is None and digest is None:
    raise _nothing(place, what)
  return Reference(name, row, digest)


def _nothing(place: int, what: str) -> InputError:
  return InputError(
    f"{what}: entry {place} has no id, row, hash or conversation; the file holds an id"
    " a line, or a JSON list of ids or of records, or is Parquet with a column id, row"
    " or hash or with records."
  )


def _read_parquet(path: Path, what: str) -> Iterator[Reference]:
  import pyarrow as pa
  import pyarrow.parquet as pq

  try:
    names = pq.read_schema(path).names
    if pq.read_metadata(path).num_rows:
      file = formats.ParquetFile(str(path))
      if read_likeness(next(file.records())) is not None:
        kept = (r for r in file.records() if r.value is None or r.value.get("kept", 1))
        return _read_records(kept, what)
    if not {"id", "row", "hash"} & set(names):
      raise InputError(
        f"{what}: the Parquet file has no column id, row or hash; it has"
        f" {', '.join(names[:20])}."
      )
    table = pq.read_table(path, columns=[name for name in _COLUMNS if name in names])
    if "kept" in names:
      table = table.filter(table["kept"].cast(pa.bool_()))
  except (pa.ArrowException, OSError) as error:
    raise InputError(f"{what}: the Parquet file is damaged ({error}).") from error
  lines = table.to_pylist()
  return (_refer(Record(0, 0, line), place, what) for place, line in enumerate(lines))


def read_shares(value: Any) -> dict[str, float] | None:
  """Target shares by group name, from a dict, JSON text or a JSON file.

  Raises:
    InputError: it is none of these.
  """
  if not value:
    return None
  if isinstance(value, str):
    try:
      text = Path(value).read_text() if Path(value).is_file() else value
      value = json.loads(text)
    except (OSError, ValueError) as error:
      raise InputError(
        f"select.target_shares={value}: no JSON and no file of it ({error}); give"
        ' {"group": share, ...}, in the config or in a file.'
      ) from error
  number = (int, float)
  if not isinstance(value, Mapping) or not all(
    isinstance(share, number) and not isinstance(share, bool)
    for share in value.values()
  ):
    raise InputError(
      f"select.target_shares is {value!r}; it gives a number for each group's name."
    )
  return {str(name): float(share) for name, share in value.items()}
