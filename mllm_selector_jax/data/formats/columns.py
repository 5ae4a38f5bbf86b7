"""What the formats of tables, Parquet and Arrow, share."""

from collections.abc import Iterable, Iterator
from typing import Any

from mllm_selector_jax.types import Record

_BATCH_BYTES = 8 << 20  # that are Python objects at once
_MOST_ROWS = 1024  # of a batch


def size_batch(nbytes: int, rows: int) -> int:
  """Rows that are made Python objects at once."""
  each = max(1, nbytes) / max(1, rows)
  return max(1, min(_MOST_ROWS, int(_BATCH_BYTES / each)))


def is_list(kind: Any) -> bool:
  import pyarrow as pa

  return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def is_binary(kind: Any) -> bool:
  import pyarrow as pa

  return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def holds_bytes(kind: Any) -> bool:
  """Whether a column's type is that of image files: a struct with `bytes`."""
  import pyarrow as pa

  if is_list(kind):
    return holds_bytes(kind.value_type)
  return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def mark_text_only(records: Iterable[Record], schema: Any) -> Iterator[Record]:
  """Says of rows without an image that they have none, where others have one inside."""
  columns = [field.name for field in schema if holds_bytes(field.type)]
  for record in records:
    if columns and record.pictures is None and record.value is not None:
      if not any(record.value.get(name) for name in columns):
        record = record._replace(pictures=())
    yield record
