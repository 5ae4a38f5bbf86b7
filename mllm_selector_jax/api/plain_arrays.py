"""Reads the arrays that callers give, of whatever library, and checks their shapes."""

import hashlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.types import InputError


def to_numpy(values: Any) -> np.ndarray:
  """Converts an array of any library, a nested list or an Arrow column to numpy."""
  if hasattr(values, "to_pylist"):  # pyarrow
    values = values.to_pylist()
  elif hasattr(values, "detach"):  # torch
    values = values.detach().cpu()
    values = values.float() if values.is_floating_point() else values
  elif not hasattr(values, "__array__"):  # a column of `datasets`, or a list
    values = list(values)
  return np.asarray(values)


def check_length(values: np.ndarray, name: str, count: int | None) -> None:
  """Raises an InputError unless there is an entry for each row; None allows any."""
  if count is not None and len(values) != count:
    raise InputError(
      f"{name} has {len(values):,} entries, but there are {count:,} losses."
    )


def read_column(values: Any, name: str, count: int | None) -> Float[np.ndarray, " N"]:
  """Reads a number for each row."""
  try:
    column = to_numpy(values).astype(np.float64)
  except (TypeError, ValueError) as error:
    raise InputError(f"{name} must be numbers: {error}.") from error
  if column.ndim != 1 or not len(column):
    raise InputError(
      f"{name} has the shape {column.shape}; it must be [N], one number for each row."
    )
  check_length(column, name, count)
  return column


def read_matrix(values: Any, count: int) -> Float[np.ndarray, "N D"]:
  """Reads a vector for each row."""
  try:
    matrix = to_numpy(values).astype(np.float32)
  except (TypeError, ValueError) as error:
    raise InputError(f"embeddings must be numbers: {error}.") from error
  if matrix.ndim != 2 or not matrix.shape[1]:
    raise InputError(
      f"embeddings has the shape {matrix.shape}; it must be [N, D], one vector for each"
      " row."
    )
  check_length(matrix, "embeddings", count)
  return matrix


def read_labels(values: Any, name: str, count: int) -> np.ndarray:
  """Reads a number or a name for each row."""
  labels = to_numpy(values)
  if labels.ndim != 1:
    raise InputError(f"{name} has the shape {labels.shape}; it must be [N].")
  check_length(labels, name, count)
  return labels if labels.dtype.kind in "iub" else labels.astype(object)


def read_integers(
  values: Any, name: str, count: int, unit: float = 1
) -> Int[np.ndarray, " N"]:
  """Reads a whole number for each row, counted in units and rounded up."""
  column = read_column(values, name, count)
  column = column if unit == 1 else np.ceil(column / unit)
  if not (np.isfinite(column).all() and (column == np.floor(column)).all()):
    raise InputError(f"{name} must be whole numbers.")
  return column.astype(np.int64)


def read_flags(values: Any, name: str, count: int) -> Bool[np.ndarray, " N"]:
  """Reads a boolean for each row."""
  flags = to_numpy(values)
  if flags.dtype != bool or flags.ndim != 1:
    raise InputError(f"{name} must be [N] booleans, one for each row.")
  check_length(flags, name, count)
  return flags


def read_ids(values: Any, count: int) -> list[Any]:
  """Reads the id of each row, none of which repeats another."""
  ids = to_numpy(values).tolist()
  if len(ids) != count:
    raise InputError(f"ids has {len(ids):,} entries, but there are {count:,} losses.")
  if len(set(ids)) != count:
    raise InputError(
      f"ids: {count - len(set(ids)):,} of {count:,} repeat an earlier one; give each"
      " row an id of its own, or none at all."
    )
  return ids


def hash_names(ids: Any, names: list[Any]) -> UInt64[np.ndarray, " N"]:
  """Returns the 64-bit keys of the draws: hashes of the ids, or of row numbers."""
  kind = "row" if ids is None else "id"
  digests = (hashlib.sha256(f"{kind} {name}".encode()).digest()[:8] for name in names)
  return np.array([int.from_bytes(digest, "big") for digest in digests], np.uint64)
