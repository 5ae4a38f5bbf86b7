"""Reads the columns whose values `select.most` and `select.least` limit."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.selection.limits import Column, make_column, read_amounts
from mllm_selector_jax.types import InputError

IMAGE = "image"  # the column of the images of a row, by their content
OPTIONS = ("most", "least")


def read_limits(config: dict[str, Any]) -> dict[str, Any]:
  """Return a config with `most` and `least` in one form, or without them if empty."""
  amounts = {name: read_amounts(config.get(name), f"select.{name}") for name in OPTIONS}
  others = {key: value for key, value in config.items() if key not in OPTIONS}
  return {**others, **{name: value for name, value in amounts.items() if value}}


def check_limits(config: dict[str, Any], columns: Collection[str]) -> None:
  """Check the names of the columns that a config from `read_limits` limits.

  Args:
    config: The config.
    columns: The columns that rows may be grouped by.

  Raises:
    InputError: A name is neither "image" nor one of the columns.
  """
  allowed = {IMAGE, *columns}
  for option in OPTIONS:
    for name in config.get(option) or ():
      if name not in allowed:
        raise InputError(
          f"select.{option} names {name!r}; allowed are {', '.join(sorted(allowed))}."
        )


def read_limited(
  config: dict[str, Any],
  pool: PoolTable,
  rows: Int[np.ndarray, " N"],
  columns: Mapping[str, np.ndarray],
) -> dict[str, Column]:
  """Read the columns that a config limits, for rows of the pool.

  Args:
    config: The config from `read_limits`.
    pool: The checked pool.
    rows: Pool row numbers of the eligible rows, ascending.
    columns: The columns that rows may be grouped by, aligned with `rows`.

  Raises:
    InputError: A column has numbers that are not whole.
  """
  found = {}
  for option in OPTIONS:
    for name in config.get(option) or ():
      if name in found:
        continue
      if name == IMAGE:
        found[name] = _read_images(pool, rows)
        continue
      values = columns[name]
      if values.dtype.kind == "f":
        raise InputError(
          f"select.{option} names {name!r}, whose values are numbers with fractions,"
          " which hardly any two rows share; name a column of texts or whole numbers."
        )
      found[name] = make_column(values)
  return found


def _read_images(pool: PoolTable, rows: Int[np.ndarray, " N"]) -> Column:
  """Return the images of each row by the hashes of their bytes.

  Images with the same bytes are one, under the first of their paths.
  """
  counts, bounds = pool.image_hashes.counts[rows], pool.image_hashes.bounds[rows]
  owners = np.repeat(np.arange(len(rows)), counts)
  offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
  codes = pool.image_hashes.values.codes[np.repeat(bounds, counts) + offset]
  column = make_column(codes, owners, len(rows))
  # A row that can be used has as many paths as hashes.
  _, first = np.unique(codes, return_index=True)
  paths = pool.images.bounds[rows][owners[first]] + offset[first]
  return column._replace(names=tuple(pool.images.values[paths].tolist()))
