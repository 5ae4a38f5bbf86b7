"""Lists that people give: ids and target shares, in the config or in files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mllm_selector_jax.types import InputError

SUFFIXES = (".txt", ".json", ".jsonl", ".parquet")  # of what must be a file


def read_ids(value: Any, name: str) -> list[str]:
  """Ids from a list, a comma-separated text, or a file.

  A file has one id a line, or is JSON (a list of ids or of records with ids), or
  Parquet with a column `id`, of whose rows those count that `kept` marks, if there
  is such a column.

  Raises:
    InputError: the file is none of these.
  """
  if not value:
    return []
  if isinstance(value, int):
    return [str(value)]
  if not isinstance(value, str):
    return [str(each) for each in value]
  path = Path(value)
  if not path.is_file():
    if "/" in value or path.suffix in SUFFIXES:
      raise InputError(f"{name}={value}: there is no such file.")
    return [part.strip() for part in value.split(",") if part.strip()]
  with open(path, "rb") as file:
    if file.read(4) == b"PAR1":
      return _read_column(path, f"{name}={value}")
  try:
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if lines and lines[0].startswith("["):
      found = json.loads("\n".join(lines))
    elif lines and lines[0].startswith("{"):
      found = [json.loads(line) for line in lines]
    else:
      found = lines
  except ValueError as error:
    raise InputError(f"{name}={value}: no text or not whole JSON ({error}).") from error
  ids = [each.get("id") if isinstance(each, dict) else each for each in found]
  for place, each in enumerate(ids):
    if not isinstance(each, str | int):
      raise InputError(
        f"{name}={value}: entry {place} has no id; the file holds an id a line, or a"
        " JSON list of ids or of records with ids, or is Parquet with a column id."
      )
  return [str(each) for each in ids]


def _read_column(path: Path, what: str) -> list[str]:
  import pyarrow as pa
  import pyarrow.parquet as pq

  try:
    names = pq.read_schema(path).names
    if "id" not in names:
      raise InputError(
        f"{what}: the Parquet file has no column id; it has {', '.join(names[:20])}."
      )
    table = pq.read_table(path, columns=[n for n in ("id", "kept") if n in names])
    if "kept" in names:
      table = table.filter(table["kept"].cast(pa.bool_()))
  except (pa.ArrowException, OSError) as error:
    raise InputError(f"{what}: the Parquet file is damaged ({error}).") from error
  if table["id"].null_count:
    raise InputError(f"{what}: {table['id'].null_count:,} rows have no id.")
  return [str(each) for each in table["id"].to_pylist()]


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
