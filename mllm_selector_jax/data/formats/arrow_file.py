"""Reads Arrow IPC: streams, as `datasets.save_to_disk` writes, and files (Feather).

The columns are read as those of Parquet files are. The file is memory-mapped.
"""

import bisect
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mllm_selector_jax import storage
from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.data.formats.columns import (
  holds_bytes,
  is_binary,
  mark_text_only,
  size_batch,
)
from mllm_selector_jax.data.formats.parquet_file import list_names, read_batch
from mllm_selector_jax.data.formats.pool_file import (
  PoolFile,
  changed,
  explain,
  first_line,
)
from mllm_selector_jax.types import InputError, Record

_FILE = b"ARROW1"
_STREAM = b"\xff\xff\xff\xff"  # before each message's length


class ArrowFile(PoolFile):
  """An Arrow file; the offset of a record is its row number.

  The length of a record is the mean over the rows that are read together.
  """

  name = "Arrow"
  suffixes = (".arrow", ".feather")

  def __init__(self, path: str):
    import pyarrow as pa

    super().__init__(path)
    if storage.is_remote(self.place):
      raise InputError(
        f"{path}: Arrow files can only be read from a local disk. Copy it there."
      )
    try:
      source = pa.memory_map(self.place)
      self._is_file = source.read(len(_FILE)) == _FILE
      source.seek(0)
      if self._is_file:
        reader = pa.ipc.open_file(source)
        batches = [reader.get_batch(n) for n in range(reader.num_record_batches)]
      else:
        reader = pa.ipc.open_stream(source)
        batches = list(reader)
      self._schema = reader.schema
      names = self._schema.names
    except FileNotFoundError as error:
      raise explain(path, error) from error
    except (pa.ArrowException, OSError, ValueError) as error:
      raise InputError(
        f"{path}: not a complete Arrow file ({first_line(error)}). Copy it again."
      ) from error
    if len(set(names)) < len(names):
      raise InputError(f"{path}: two columns have the same name.")
    self._batches = batches
    sizes = (batch.num_rows for batch in batches)
    self._starts = [0, *itertools.accumulate(sizes)]
    self.extent = self._starts[-1]
    if not self.extent:
      raise InputError(f"{path}: the file has no rows; a pool needs at least one.")
    self._validated: set[int] = set()  # numbers of batches without damage

  @classmethod
  def matches(cls, path: str, head: bytes) -> bool:
    return head.startswith((_FILE, _STREAM))

  def records(self) -> Iterator[Record]:
    for number, start in enumerate(self._starts[:-1]):
      batch = self._get(number)
      step = size_batch(batch.nbytes, batch.num_rows)
      for row in range(0, batch.num_rows, step):
        yield from self._read(batch.slice(row, step), start + row)

  def read(self, offset: int, length: int) -> Record:
    if not 0 <= offset < self.extent:
      raise changed(self.path, f"no row {offset:,}")
    number = bisect.bisect_right(self._starts, offset) - 1
    row = self._get(number).slice(offset - self._starts[number], 1)
    return next(self._read(row, offset))._replace(length=length)

  def count(self) -> int:
    return self.extent

  def image_names(self) -> Iterator[str]:
    import pyarrow as pa

    for number in range(len(self._batches)):
      batch = self._get(number)
      columns = {
        name: _find_paths(batch.column(name))
        for name in batch.schema.names
        if record_schemas.is_image_field(name)
      }
      columns = {name: paths for name, paths in columns.items() if paths is not None}
      if columns:
        yield from list_names(pa.RecordBatch.from_pydict(columns))

  def copy(self, places: Iterable[tuple[int, int]], out: Path) -> None:
    import pyarrow as pa

    rows = [row for row, _ in places]
    make_writer = pa.ipc.new_file if self._is_file else pa.ipc.new_stream
    with make_writer(out, self._schema) as writer:
      for number, start in enumerate(self._starts[:-1]):
        stop = self._starts[number + 1]
        rows_of_batch = [row - start for row in rows if start <= row < stop]
        if rows_of_batch:
          writer.write_batch(self._get(number).take(pa.array(rows_of_batch)))

  def done(self, record: Record) -> float:
    return (record.offset + 1) / self.extent

  def _read(self, batch: Any, start: int) -> Iterator[Record]:
    return mark_text_only(read_batch(batch, start), self._schema)

  def _get(self, number: int) -> Any:
    """Returns a batch, which is validated once.

    Arrow itself does not check the offsets in a file, and damaged ones could make it
    read outside the file.
    """
    import pyarrow as pa

    batch = self._batches[number]
    if number not in self._validated:
      try:
        batch.validate(full=True)
      except (pa.ArrowException, ValueError) as error:
        raise InputError(
          f"{self.path}: rows from {self._starts[number]:,} on are damaged"
          f" ({first_line(error)}). Copy the file again."
        ) from error
      self._validated.add(number)
    return batch


def _find_paths(column: Any) -> Any:
  """Returns the image paths of a column, without reading the images' bytes.

  Returns:
    None for a column of lists of images, and for one of bytes without paths.
  """
  import pyarrow as pa
  import pyarrow.compute as pc

  if is_binary(column.type):
    return None
  if not holds_bytes(column.type):
    return column
  if not pa.types.is_struct(column.type) or column.type.get_field_index("path") < 0:
    return None
  return pc.struct_field(column, "path")
