"""Reads Parquet files, as Hugging Face's datasets publish them.

A column of images holds structs of `bytes` and `path`, or paths, or lists of these.
"""

import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mllm_selector_jax import storage
from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.data.files.compressed import LEAST_CAP, MOST_RATIO
from mllm_selector_jax.data.formats.columns import (
  bound_shared,
  holds_bytes,
  is_binary,
  is_list,
  mark_text_only,
  size_batch,
)
from mllm_selector_jax.data.formats.pool_file import (
  PoolFile,
  changed,
  explain,
  first_line,
)
from mllm_selector_jax.data.record_schemas import image_values
from mllm_selector_jax.types import InputError, Record, RowError

_MOST_BATCH = 1 << 28  # bytes that rows which are decoded at once may come to
_FEW = 8  # rows that may come to more, since each batch takes a tenth of a millisecond


class ParquetFile(PoolFile):
  """A Parquet file; the offset of a record is its row number.

  The length of a record is the mean over the rows that are read together. Reading a
  single row reads its whole row group; the last row group is kept.
  """

  name = "Parquet"
  suffixes = (".parquet",)

  def __init__(self, path: str):
    import pyarrow as pa
    import pyarrow.parquet as pq

    super().__init__(path)
    try:
      source = storage.open_binary(self.place)
      weakref.finalize(self, source.close)
      # Without a buffer, pyarrow would hold a whole row group in memory.
      self._file = pq.ParquetFile(
        source, buffer_size=1 << 20, page_checksum_verification=True
      )
      names = self._file.schema_arrow.names
      metadata = self._file.metadata
      groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    except FileNotFoundError as error:
      raise explain(path, error) from error
    except (pa.ArrowException, OSError, ValueError) as error:
      raise InputError(
        f"{path}: not a complete Parquet file ({first_line(error)}). Copy it again."
      ) from error
    if len(set(names)) < len(names):
      raise InputError(f"{path}: two columns have the same name.")
    self._starts = [0]
    for group in groups:
      self._starts.append(self._starts[-1] + group.num_rows)
    self._sizes = [group.total_byte_size for group in groups]
    self.extent = self._starts[-1]
    if not self.extent:
      raise InputError(f"{path}: the file has no rows; a pool needs at least one.")
    self._lock = threading.Lock()
    self._last_group: tuple[int, Any] = (-1, None)  # its number and its table

  @classmethod
  def matches(cls, path: str, head: bytes) -> bool:
    return head.startswith(b"PAR1")

  def records(self) -> Iterator[Record]:
    for group, start in enumerate(self._starts[:-1]):
      for batch in self._batches(group):
        yield from self._read(batch, start)
        start += batch.num_rows

  def read(self, offset: int, length: int) -> Record:
    if not 0 <= offset < self.extent:
      raise changed(self.path, f"no row {offset:,}")
    group = next(n for n, stop in enumerate(self._starts[1:]) if offset < stop)
    with self._lock:
      if self._last_group[0] != group:
        self._last_group = (-1, None)  # frees its memory first
        self._last_group = (group, self._read_group(group).combine_chunks())
      table = self._last_group[1]
    row = table.slice(offset - self._starts[group], 1).to_batches()[0]
    return next(self._read(row, offset))._replace(length=length)

  def count(self) -> int:
    return self.extent

  def image_names(self) -> Iterator[str]:
    columns = [
      column
      for field in self._file.schema_arrow
      if record_schemas.is_image_field(field.name)
      for column in [f"{field.name}.path" if holds_bytes(field.type) else field.name]
      if not (holds_bytes(field.type) and is_list(field.type))
      and not is_binary(field.type)
    ]
    for group in range(len(self._sizes) if columns else 0):
      for batch in self._batches(group, columns):
        yield from list_names(batch)

  def copy(self, places: Iterable[tuple[int, int]], out: Path) -> None:
    import pyarrow.parquet as pq

    rows = [row for row, _ in places]
    with pq.ParquetWriter(out, self._file.schema_arrow, compression="zstd") as writer:
      for group, start in enumerate(self._starts[:-1]):
        stop = self._starts[group + 1]
        rows_of_group = [row - start for row in rows if start <= row < stop]
        if rows_of_group:
          writer.write_table(self._read_group(group).take(rows_of_group))

  def done(self, record: Record) -> float:
    return (record.offset + 1) / self.extent

  def _read(self, batch: Any, start: int) -> Iterator[Record]:
    return mark_text_only(read_batch(batch, start), self._file.schema_arrow)

  def _batches(self, group: int, columns: list[str] | None = None) -> Iterator[Any]:
    rows = self._starts[group + 1] - self._starts[group]
    size = size_batch(self._sizes[group], rows)
    # A value that many rows share is stored once, and may be as long as the row group.
    size = min(size, max(_FEW, _MOST_BATCH // max(1, self._sizes[group])))
    batches = self._file.iter_batches(size, [group], columns)
    rows_read = 0
    while (batch := self._guard(group, lambda: next(batches, None))) is not None:
      rows_read += batch.num_rows
      yield batch
    if rows_read != rows:
      raise InputError(
        f"{self.path}: row group {group} holds {rows_read:,} rows, but its metadata"
        f" promise {rows:,}. Copy the file again."
      )

  def _read_group(self, group: int) -> Any:
    """Reads a row group, in steps, since its decoded size is told by nothing else."""
    import pyarrow as pa

    batches, size = [], 0
    most = max(LEAST_CAP, MOST_RATIO * storage.measure(self.place))
    for batch in self._batches(group):
      size += batch.nbytes
      if size > most:
        raise InputError(
          f"{self.path}: row group {group} decodes to more than {most:,} bytes, the"
          " most allowed for a file of this size. Write it with smaller row groups."
        )
      batches.append(batch)
    return pa.Table.from_batches(batches, self._file.schema_arrow)

  def _guard(self, group: int, function):
    """Calls a function that reads a row group, and explains what it raises."""
    import pyarrow as pa

    try:
      return function()
    except (pa.ArrowException, OSError, ValueError) as error:
      raise InputError(
        f"{self.path}: row group {group} is damaged ({first_line(error)})."
        " Copy the file again."
      ) from error


def list_names(batch: Any) -> Iterator[str]:
  """Yields the names of the external images that a batch of image columns holds."""
  for record in read_batch(batch, 0):
    try:
      images, _ = image_values.read_fields(record.value or {})
    except RowError:
      continue
    yield from image_values.names_of(images.pictures)


def read_batch(batch: Any, start: int) -> Iterator[Record]:
  """Yields the records of a pyarrow batch.

  Rows that cannot be converted, for example because a text is not UTF-8, are malformed.

  Args:
    batch: a RecordBatch.
    start: the number in the file of the batch's first row.
  """
  count = batch.num_rows
  length = -(-batch.nbytes // max(1, count)) + bound_shared(batch)
  step = size_batch(length * count, count)
  for first in range(0, count, step):
    for number, row in enumerate(_convert_rows(batch.slice(first, step))):
      offset = start + first + number
      if isinstance(row, str):
        yield Record(offset, length, None, "malformed", f"row {offset:,}: {row}")
        continue
      yield Record(offset, length, row, pictures=image_values.take_pictures(row))


def _convert_rows(batch: Any) -> list[Any]:
  try:
    return batch.to_pylist()
  except (ValueError, OverflowError):
    return [_convert(batch.slice(row, 1)) for row in range(batch.num_rows)]


def _convert(row: Any) -> dict[str, Any] | str:
  try:
    return row.to_pylist()[0]
  except (ValueError, OverflowError) as error:
    return first_line(error)
