"""Functions that both table formats, Parquet and Arrow, use."""

from collections.abc import Iterable, Iterator
from typing import Any

from mllm_selector_jax.types import Record

_BATCH_BYTES = 8 << 20  # bytes that are converted to Python objects at once
_MOST_ROWS = 1024  # largest number of rows in a batch


def size_batch(nbytes: int, rows: int) -> int:
  """Returns how many rows to convert to Python objects at once.

  Args:
    nbytes: size of the table.
    rows: number of rows of the table.
  """
  row_bytes = max(1, nbytes) / max(1, rows)
  return max(1, min(_MOST_ROWS, int(_BATCH_BYTES / row_bytes)))


def bound_shared(array: Any) -> int:
  """Returns the most bytes of a row that are stored once for many rows.

  Args:
    array: a pyarrow array, whose dictionaries hold such values, or a RecordBatch.

  Returns:
    The length of the longest value of a dictionary, added up over columns and fields.
  """
  import pyarrow as pa
  import pyarrow.compute as pc

  if isinstance(array, pa.RecordBatch):
    return sum(map(bound_shared, array.columns))
  kind = array.type
  if pa.types.is_struct(kind):
    return sum(map(bound_shared, array.flatten()))
  if is_list(kind):
    longest = pc.max(pc.list_value_length(array)).as_py() or 0
    return longest * bound_shared(array.flatten())
  if not pa.types.is_dictionary(kind):
    return 0
  try:
    return pc.max(pc.binary_length(array.dictionary)).as_py() or 0
  except pa.ArrowNotImplementedError:  # values that are no texts or bytes
    return 0


def is_list(column_type: Any) -> bool:
  """Returns whether a pyarrow type is a list."""
  import pyarrow as pa

  return pa.types.is_list(column_type) or pa.types.is_large_list(column_type)


def is_binary(column_type: Any) -> bool:
  """Returns whether a pyarrow type is bytes."""
  import pyarrow as pa

  return pa.types.is_binary(column_type) or pa.types.is_large_binary(column_type)


def holds_bytes(column_type: Any) -> bool:
  """Returns whether a pyarrow type is a struct with `bytes`, or a list of such."""
  import pyarrow as pa

  if is_list(column_type):
    return holds_bytes(column_type.value_type)
  return pa.types.is_struct(column_type) and column_type.get_field_index("bytes") >= 0


def mark_text_only(records: Iterable[Record], schema: Any) -> Iterator[Record]:
  """Sets empty `pictures` on rows without an image, if the schema has an image column.

  Without this mark, such a row could not be told from one whose images are found by
  the names in its fields.
  """
  columns = [field.name for field in schema if holds_bytes(field.type)]
  for record in records:
    if columns and record.pictures is None and record.value is not None:
      if not any(record.value.get(name) for name in columns):
        record = record._replace(pictures=())
    yield record
