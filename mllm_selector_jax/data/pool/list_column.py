"""A column of lists, such as those of a row's images, without an object a row."""

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.pool.text_column import Text

Value = TypeVar("Value")


class Lists(Generic[Value]):
  """Lists of texts or of numbers, one a row.

  Indexed by a row number it gives the row's values as a tuple.

  Args:
    column: a chunked Arrow array of lists.

  Attributes:
    bounds: where each row's values begin among `values`, and the end.
    values: of all rows, one row after the other: an array of numbers, or a `Text`.
  """

  bounds: Int[np.ndarray, " N+1"]
  values: Any

  def __init__(self, column: Any):
    import pyarrow as pa

    lengths = column.combine_chunks() if column.num_chunks else None
    counts = np.zeros(0, np.int64) if lengths is None else _count(lengths)
    self.bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    flat = pa.chunked_array(
      [chunk.flatten() for chunk in column.chunks], column.type.value_type
    )
    is_text = pa.types.is_string(flat.type) or pa.types.is_dictionary(flat.type)
    self.values = Text(flat) if is_text else flat.to_numpy()

  def __len__(self) -> int:
    return len(self.bounds) - 1

  def __getitem__(self, row: int | np.integer) -> tuple[Value, ...]:
    return tuple(self.values[self.bounds[row] : self.bounds[row + 1]].tolist())

  def __iter__(self) -> Iterator[tuple[Value, ...]]:
    return (self[row] for row in range(len(self)))

  @property
  def counts(self) -> Int[np.ndarray, " N"]:
    """How many values each row has."""
    return np.diff(self.bounds)


def list_texts(column: Any) -> Any:
  """Returns a chunked Arrow array of texts as one of lists, empty for a null."""
  import pyarrow as pa
  import pyarrow.compute as pc

  texts = column.combine_chunks()
  is_text = pc.is_valid(texts).to_numpy(zero_copy_only=False)
  bounds = np.concatenate([[0], np.cumsum(is_text)]).astype(np.int32)
  return pa.chunked_array([pa.ListArray.from_arrays(bounds, texts.drop_null())])


def _count(lists: Any) -> Int[np.ndarray, " N"]:
  import pyarrow.compute as pc

  return pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
