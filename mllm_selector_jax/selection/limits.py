"""Limits by value: how many rows of an image, or of a column's value, are kept."""

import dataclasses
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from mllm_selector_jax.selection import admission
from mllm_selector_jax.types import InputError

NO_LIMIT = np.iinfo(np.int64).max
_AMOUNT = re.compile(r"(\d[\d_]*(?:\.\d+)?) ?(%?)")


def read_amounts(value: Any, option: str) -> dict[str, str] | None:
  """Reads `select.most` or `select.least`: an amount for each column.

  Args:
    value: "image=2, source=10%", or a dict such as {"image": 2, "source": "10%"}.
    option: the name of the option, for messages.

  Returns:
    The amount of each column in one form, whatever it was written in; None if there is
    none.

  Raises:
    InputError: the value has another form, or an amount is no number of rows from 1 and
      no share of up to 100 %.
  """
  if value is None or value == "":
    return None
  pairs: list[tuple[Any, ...]] = [()]
  if hasattr(value, "items"):
    pairs = [(name, amount) for name, amount in value.items()]
  elif isinstance(value, str):
    parts = [part for part in value.split(",") if part.strip()]
    pairs = [tuple(part.rsplit("=", 1)) for part in parts]
  amounts: dict[str, str] = {}
  for pair in pairs:
    if len(pair) != 2 or not isinstance(pair[0], str) or not pair[0].strip():
      raise InputError(
        f"{option} is {value!r}; it gives each column an amount, as in"
        ' "image=2, source=10%".'
      )
    name = pair[0].strip()
    if name in amounts:
      raise InputError(f"{option} names {name!r} twice; give each column one amount.")
    amounts[name] = _read_amount(pair[1], f"{option}: {name}")
  return dict(sorted(amounts.items())) or None


def _read_amount(value: Any, where: str) -> str:
  match = None if isinstance(value, bool) else _AMOUNT.fullmatch(str(value).strip())
  number = Fraction(match[1].replace("_", "")) if match else Fraction(0)
  share = bool(match and match[2])
  if not number or (number > 100 if share else number.denominator != 1):
    raise InputError(
      f"{where} is {value!r}; an amount is a number of rows, 1 or more, or a share of"
      ' the rows of each value, as "10%".'
    )
  return f"{float(number):g}%" if share else str(int(number))


class Column(NamedTuple):
  """The values that rows have in a column; a row may have several, or none.

  Attributes:
    bounds: where the values of each row begin in `index`, and the end.
    index: the numbers of the values, one row after the other; none twice in a row.
    names: the name of each value.
  """

  bounds: Int[np.ndarray, " N1"]
  # The name hides `tuple.index`, which nothing calls.
  index: Int[np.ndarray, " P"]  # type: ignore[assignment]
  names: tuple[str, ...]


def make_column(
  values: np.ndarray, rows: Int[np.ndarray, " P"] | None = None, count: int = 0
) -> Column:
  """Makes a column of its values; None is no value.

  Args:
    values: [P] the values.
    rows: the row of each value, ascending; by default each row has one.
    count: the number of rows, if `rows` is given.
  """
  if rows is None:
    rows, count = np.arange(len(values)), len(values)
  if values.dtype == object:
    known = np.array([value is not None for value in values], bool)
    rows, values = rows[known], values[known].astype(str)
  names, index = np.unique(values, return_inverse=True)
  pairs = np.unique(np.stack([rows, index.reshape(-1)]), axis=1).astype(np.int64)
  sizes = np.bincount(pairs[0], minlength=count)
  bounds = np.concatenate([[0], np.cumsum(sizes)])
  return Column(bounds, pairs[1], tuple(str(name) for name in names))


@dataclasses.dataclass(frozen=True)
class Limits:
  """The limits of a selection, on the values of all limited columns together.

  Attributes:
    bounds, index: as in `Column`; values that no limit can affect are left out.
    most, least: the maximum and the minimum of kept rows of each value.
    size: the number of rows of each value that are not left out.
    column: the number of each value's column in `columns`.
    names: the name of each value.
    columns: the names of the columns.
  """

  bounds: Int[np.ndarray, " N1"]
  index: Int[np.ndarray, " P"]
  most: Int[np.ndarray, " V"]
  least: Int[np.ndarray, " V"]
  size: Int[np.ndarray, " V"]
  column: Int[np.ndarray, " V"]
  names: tuple[str, ...]
  columns: tuple[str, ...]

  def decisive(self) -> tuple[np.ndarray, ...]:
    """Returns what decides whether a row fits."""
    return self.bounds, self.index, self.most

  def describe(self, value: int) -> str:
    """Returns the column and the name of a value, for messages."""
    return f"{self.columns[self.column[value]]} {self.names[value]!r}"

  def count(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " V"]:
    """Returns how many of some rows have each value."""
    chosen = np.zeros(len(self.bounds) - 1, bool)
    chosen[rows] = True
    pairs = np.repeat(chosen, np.diff(self.bounds))
    return np.bincount(self.index[pairs], minlength=len(self.most))

  def having(self, values: Bool[np.ndarray, " V"]) -> Bool[np.ndarray, " N"]:
    """Returns which rows have one of some values."""
    rows = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))
    mask = np.zeros(len(self.bounds) - 1, bool)
    mask[rows[values[self.index]]] = True
    return mask


def make_limits(
  columns: Mapping[str, Column],
  most: Mapping[str, str] | None,
  least: Mapping[str, str] | None,
  left_out: Bool[np.ndarray, " N"],
) -> Limits | None:
  """Applies `select.most` and `select.least` to the values of their columns.

  Args:
    columns: the columns that rows have.
    most, least: from `read_amounts`.
    left_out: the rows that must not be kept, which do not count.

  Returns:
    The limits; None if there are none.

  Raises:
    InputError: a column is not known, or a value has a minimum above its maximum.
  """
  most, least = most or {}, least or {}
  if not most and not least:
    return None
  names = tuple(sorted({*most, *least}))
  for name in names:
    if name not in columns:
      option = "most" if name in most else "least"
      raise InputError(
        f"select.{option} names the column {name!r}; there are"
        f" {', '.join(sorted(columns)) or 'none'}."
      )
  parts = [
    _apply(columns[name], most.get(name), least.get(name), left_out) for name in names
  ]
  shifts = np.cumsum([0, *(len(part[1]) for part in parts)])
  rows = np.concatenate([part[0][0] for part in parts])
  index = np.concatenate(
    [part[0][1] + shift for part, shift in zip(parts, shifts[:-1], strict=True)]
  )
  order = np.lexsort((index, rows))
  sizes = np.bincount(rows, minlength=len(left_out))
  limits = Limits(
    bounds=np.concatenate([[0], np.cumsum(sizes)]),
    index=index[order],
    most=np.concatenate([part[1] for part in parts]),
    least=np.concatenate([part[2] for part in parts]),
    size=np.concatenate([part[3] for part in parts]),
    column=np.repeat(np.arange(len(parts)), [len(part[1]) for part in parts]),
    names=tuple(name for part in parts for name in part[4]),
    columns=names,
  )
  both = np.flatnonzero(np.minimum(limits.least, limits.size) > limits.most)
  if len(both):
    value = int(both[0])
    raise InputError(
      f"select.least wants {min(limits.least[value], limits.size[value]):,} rows of"
      f" {limits.describe(value)}, and select.most allows {limits.most[value]:,}; lower"
      " the one or raise the other."
    )
  return limits


def _apply(column: Column, most: str | None, least: str | None, left_out):
  """Returns (rows, index), most, least, size, names of the values that are limited."""
  rows = np.repeat(np.arange(len(left_out)), np.diff(column.bounds))
  index = column.index
  kept = ~left_out[rows]
  rows, index = rows[kept], index[kept]
  size = np.bincount(index, minlength=len(column.names))
  upper = np.full(len(size), NO_LIMIT) if most is None else _amounts(most, size)
  lower = np.zeros(len(size), np.int64) if least is None else _amounts(least, size)
  # Values that have no more rows than they may give limit nothing.
  matters = (upper < size) | (lower > 0) & (size > 0)
  number = np.cumsum(matters) - 1
  wanted = matters[index]
  names = tuple(column.names[value] for value in np.flatnonzero(matters).tolist())
  return (
    (rows[wanted], number[index[wanted]]),
    upper[matters],
    lower[matters],
    size[matters],
    names,
  )


def _amounts(text: str, size: Int[np.ndarray, " V"]) -> Int[np.ndarray, " V"]:
  """Returns an amount for each value; a share of its rows is rounded up."""
  if not text.endswith("%"):
    return np.full(len(size), int(text))
  share = Fraction(text[:-1]) / 100
  return -(-size * share.numerator // share.denominator)


class Room:
  """How many rows of each value were taken, and how many more may be."""

  def __init__(self, limits: Limits):
    self.limits = limits
    self.count = np.zeros(len(limits.most), np.int64)

  def add(self, rows: Int[np.ndarray, " n"]) -> None:
    """Takes rows, whether they fit or not."""
    self.count += self.limits.count(rows)

  def take(self, row: int) -> bool:
    """Takes a row if all its values may give another one, and returns whether."""
    values = self._values(row)
    fits = bool((self.count[values] < self.limits.most[values]).all())
    self.count[values] += fits
    return fits

  def _values(self, row: int) -> Int[np.ndarray, " v"]:
    bounds = self.limits.bounds
    return self.limits.index[bounds[row] : bounds[row + 1]]

  def full(self) -> Bool[np.ndarray, " N"]:
    """Returns the rows that do not fit."""
    return self.limits.having(self.count >= self.limits.most)

  def admit(
    self, order: Int[np.ndarray, " n"], wanted: bool = False
  ) -> Bool[np.ndarray, " n"]:
    """Takes the rows of an order that fit, one after the other.

    Args:
      order: the rows, the first one first.
      wanted: whether to pass over rows of which no value needs another row.

    Returns:
      For each row of the order, whether it was taken.
    """
    bounds, index, most = self.limits.bounds, self.limits.index, self.limits.most
    least = self.limits.least if wanted else None
    taken = admission.admit(order, bounds, index, most, self.count, least)
    self.count += self.limits.count(order[taken])
    return taken
