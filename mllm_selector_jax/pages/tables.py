"""Reads tables and JSON of artifacts; errors name the damaged file."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Int

from mllm_selector_jax.types import RunError

NO_LABEL = -1


class Labels(NamedTuple):
  """A column of texts: row n has `names[codes[n]]`, or no text if the code is -1."""

  codes: Int[np.ndarray, " N"]
  names: list[str]

  def counts(self, where: Bool[np.ndarray, " N"] | None = None) -> dict[str, int]:
    """Count the rows of each name, the most frequent first, ties by name."""
    codes = self.codes if where is None else self.codes[where]
    totals = np.bincount(codes[codes >= 0], minlength=len(self.names))
    pairs = [(name, int(n)) for name, n in zip(self.names, totals, strict=True) if n]
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def read_table(path: Path, columns: tuple[str, ...]) -> pa.Table:
  texts = ["source", "reason", "group_name"]
  with damage_named(path):
    present = set(pq.read_schema(path).names)
    existing = [name for name in columns if name in present]
    return pq.read_table(
      path,
      columns=existing,
      read_dictionary=texts,
      page_checksum_verification=True,  # a flipped byte reads as a wrong value
    )


def read_json(path: Path) -> dict[str, Any] | None:
  if not path.is_file():
    return None
  with damage_named(path):
    return json.loads(path.read_bytes())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
  if not path.is_file():
    return
  with damage_named(path), open(path, "rb") as file:
    for line in file:
      if line.strip():
        yield json.loads(line)


def read_rows(
  path: Path, rows: Int[np.ndarray, " K"], columns: tuple[str, ...]
) -> dict[int, dict[str, Any]]:
  """Read some rows of a large table, batch by batch."""
  records = {}
  with (
    damage_named(path),
    pq.ParquetFile(path, page_checksum_verification=True) as file,
  ):
    present = [name for name in columns if name in file.schema_arrow.names]
    for batch in file.iter_batches(16_384, columns=["row", *present]):
      is_requested = np.isin(batch.column("row").to_numpy(), rows)
      if is_requested.any():
        for record in batch.filter(pa.array(is_requested)).to_pylist():
          records[record["row"]] = record
  return records


def numbers(table: pa.Table, name: str, fill: float, kind: type) -> np.ndarray:
  if name not in table.column_names:
    return np.full(table.num_rows, fill, kind)
  column = table[name].cast(pa.float64() if kind is np.float64 else pa.int64())
  return np.array(column.fill_null(fill).to_numpy(), kind)


def labels(table: pa.Table, name: str) -> Labels:
  if name not in table.column_names:
    return Labels(np.full(table.num_rows, NO_LABEL, np.int64), [])
  column = table[name]
  if not pa.types.is_dictionary(column.type):
    column = column.cast(pa.string()).dictionary_encode()
  column = column.unify_dictionaries().combine_chunks()
  codes = np.array(column.indices.fill_null(NO_LABEL).to_numpy(), np.int64)
  names = [str(value) if value else "" for value in column.dictionary.to_pylist()]
  empty = np.array(
    [not value for value in names] + [True]
  )  # the code -1 looks up the last entry
  return Labels(np.where(empty[codes], NO_LABEL, codes), names)


def is_present(table: pa.Table, name: str) -> np.ndarray:
  if name not in table.column_names:
    return np.zeros(table.num_rows, bool)
  column = table[name]
  if pa.types.is_list(column.type):
    return pc.list_value_length(column).fill_null(0).to_numpy() > 0
  if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
    column = pc.not_equal(pc.utf8_length(column), 0)
  else:
    column = column.is_valid()
  return column.fill_null(False).to_numpy()


def count_distinct(table: pa.Table, name: str, where: Bool[np.ndarray, " N"]) -> int:
  """Count the different values in the marked rows."""
  if name not in table.column_names:
    return 0
  column = table[name].filter(pa.array(where)).drop_null()
  if pa.types.is_list(column.type):
    column = pc.list_flatten(column)
  return pc.count_distinct(column).as_py() if len(column) else 0


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
  try:
    yield
  except (OSError, ValueError, pa.ArrowException) as error:
    raise RunError(
      f"{path} cannot be read ({error}). Delete it and run its stage again."
    ) from error
